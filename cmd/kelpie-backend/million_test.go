package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

const (
	million     = 1_000_000
	perRequest  = 2000
	memoryBound = 4 << 30
)

// millionth is the i-th of a million series as agents send them: twenty metrics
// of fifty thousand pods.
func millionth(i int, points []metric.Point) metric.Series {
	pod, name := i/20, i%20
	return metric.Series{
		Name: fmt.Sprint("bench.million.metric_", name), Host: fmt.Sprint("node-", pod%1000), Type: metric.Rate, Interval: 10, Points: points,
		Tags: metric.NewTags("env:production", "service:checkout", fmt.Sprint("version:1.", pod%7), "kube_cluster_name:eu-1", fmt.Sprint("kube_namespace:team-", pod%50),
			fmt.Sprint("kube_deployment:web-", pod%500), fmt.Sprint("pod_name:web-", pod%500, "-5d8f7c9b4-", pod)),
	}
}

// TestMillionSeries sends as many minutes of points of a million contexts, one
// every ten seconds, as KELPIE_TEST_MILLION says, and holds the memory of the
// backend's process to 4 GiB.
func TestMillionSeries(t *testing.T) {
	minutes, err := strconv.Atoi(os.Getenv("KELPIE_TEST_MILLION"))
	if err != nil {
		t.Skip("takes minutes and gigabytes: set KELPIE_TEST_MILLION to the minutes of points to send")
	}
	p := launch(t, t.TempDir(), "KELPIE_MIN_FREE_BYTES=-1")
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	began, base := time.Now(), time.Now().Unix()-int64(minutes)*60
	series := make([]metric.Series, perRequest)
	for flush := range minutes * 6 {
		for first := 0; first < million; first += perRequest {
			for i := range series {
				series[i] = millionth(first+i, []metric.Point{{Time: base + int64(flush)*10, Value: float64((first+i)*flush%977) / 10}})
			}
			sendV2(t, p.url, zw.EncodeAll(payload.AppendV2(nil, series), nil))
		}
		resident, peak := memory(t, p.cmd.Process.Pid)
		if flush%6 == 0 || flush == minutes*6-1 {
			t.Logf("after %2d points of each: %.2f GiB resident, %.2f at most", flush+1, gib(resident), gib(peak))
		}
		if peak > memoryBound {
			t.Fatalf("%.2f GiB, more than 4", gib(peak))
		}
	}
	took := time.Since(began)
	out, err := p.run("status")
	if err != nil || !strings.Contains(out, fmt.Sprintf("series            %d of 20 metrics", million)) {
		t.Errorf("%v\n%s", err, out)
	}
	_, peak := memory(t, p.cmd.Process.Pid)
	t.Logf("%d series, %d points in %s from one sender: %.2f GiB at most, %d bytes a series", million, minutes*6*million, took.Round(time.Second), gib(peak), peak/million)
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("%v\n%s", err, p.log.String())
	}
}

func gib(n int64) float64 { return float64(n) / (1 << 30) }

func sendV2(t *testing.T, url string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/v2/series", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("DD-API-KEY", "ak")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "zstd")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s %v", resp.Status, answer, err)
	}
}

// memory returns what a process holds of memory, and the most it ever held, in bytes.
func memory(t *testing.T, pid int) (resident, peak int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var into *int64
		switch {
		case strings.HasPrefix(sc.Text(), "VmRSS:"):
			into = &resident
		case strings.HasPrefix(sc.Text(), "VmHWM:"):
			into = &peak
		default:
			continue
		}
		if _, err := fmt.Sscanf(strings.SplitN(sc.Text(), ":", 2)[1], "%d kB", into); err != nil {
			t.Fatal(err)
		}
		*into <<= 10
	}
	if resident == 0 || peak == 0 {
		t.Fatal("the kernel does not tell what the process holds")
	}
	return resident, peak
}
