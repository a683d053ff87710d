package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/agent/origin"
)

// BenchmarkRun reads a node of 110 pods, the default limit of a node, of two
// containers each.
func BenchmarkRun(b *testing.B) {
	page, err := os.ReadFile("testdata/cadvisor-2.txt")
	if err != nil {
		b.Fatal(err)
	}
	one := readPods(b)
	var node pods
	var all bytes.Buffer
	text := string(page)
	families := strings.SplitAfter(text, "# HELP ")
	copies := 110
	for _, family := range families {
		lines := strings.SplitAfter(family, "\n")
		for _, l := range lines {
			if !strings.Contains(l, "namespace=\"shop\"") {
				all.WriteString(l)
				continue
			}
			for i := range copies {
				all.WriteString(strings.NewReplacer("web-7b9f6c8d5x-x2k4m", fmt.Sprint("web-", i), "aaaaaa", fmt.Sprintf("%06d", i), "bbbbbb", fmt.Sprintf("%06d", i)).Replace(l))
			}
		}
	}
	for i := range copies {
		p := one.list[0]
		p.Metadata.Name, p.Metadata.UID = fmt.Sprint("web-", i), fmt.Sprint("uid-", i)
		p.Status.ContainerStatuses = slices.Clone(p.Status.ContainerStatuses)
		for j := range p.Status.ContainerStatuses {
			s := &p.Status.ContainerStatuses[j]
			s.ContainerID = strings.NewReplacer("aaaaaa", fmt.Sprintf("%06d", i), "bbbbbb", fmt.Sprintf("%06d", i)).Replace(s.ContainerID)
		}
		node.list = append(node.list, p)
	}
	node.index = origin.NewIndex(node.list, origin.TagOptions{})
	trial, err := check.NewTrial(Kind(answers{all.Bytes()}, &node), check.Instance{Access: fetch.Access{File: true}})
	if err != nil {
		b.Fatal(err)
	}
	defer trial.Close()
	b.SetBytes(int64(all.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if series, _, err := trial.Run(b.Context(), time.Unix(1700000115, 0)); err != nil || len(series) < 110*20 {
			b.Fatalf("%d series, %v", len(series), err)
		}
	}
}

// answers has a page for cAdvisor and nothing else.
type answers struct{ page []byte }

func (a answers) Get(_ context.Context, path string, _ int64) ([]byte, error) {
	if path == "/metrics/cadvisor" {
		return a.page, nil
	}
	return []byte("{}"), nil
}
