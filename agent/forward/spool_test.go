package forward

import (
	"bytes"
	"context"
	"hash/crc32"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// directory is where o's only endpoint has its payloads.
func directory(o Options) string {
	_, whole := o.Endpoints[0].directory()
	return filepath.Join(o.SpoolDir, whole)
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			out = append(out, e.Name())
		}
	}
	return out
}

// strand runs a forwarder whose intake is away until batches from to to-1 are in
// its spool, and ends it.
func strand(t *testing.T, o Options, from, to int64) Status {
	t.Helper()
	for i := range o.Endpoints {
		o.Endpoints[i].URL = strings.TrimSuffix(o.Endpoints[i].URL, "/")
	}
	o.Transport, o.DrainTimeout = refuse{}, time.Millisecond
	f := mustNew(t, o)
	c, end := run(t, f)
	for i := from; i < to; i++ {
		c <- batch(i)
	}
	end()
	return f.Status()[0]
}

// refuse is a network on which nothing answers.
type refuse struct{}

func (refuse) RoundTrip(*http.Request) (*http.Response, error) { return nil, os.ErrDeadlineExceeded }

// TestRestart holds that what a graceful end leaves behind goes out first at the
// next start, in order and once, and that the spool is then empty.
func TestRestart(t *testing.T) {
	in := newIntake(t, nil)
	o := options(in.URL)
	o.SpoolDir = filepath.Join(t.TempDir(), "made", "when", "needed")
	left := strand(t, o, 0, 40)
	if left.QueuePayloads != 40 || left.Spool.Payloads != 40 || left.Spool.Bytes != 40*block || left.DroppedPts != 0 {
		t.Errorf("left behind: %+v, spool %+v", left, *left.Spool)
	}
	strand(t, o, 40, 50) // a second start that cannot deliver, either
	for _, name := range names(t, directory(o)) {
		if f, ok := parseFile(name); !ok || f.points != 1 || f.kind != kindSeries || f.encoding != "zstd" {
			t.Errorf("file %s: %+v, %v", name, f, ok)
		}
	}
	f := mustNew(t, o)
	c, end := run(t, f)
	for i := int64(50); i < 60; i++ {
		c <- batch(i)
	}
	eventually(t, "all arrives", func() bool { return len(in.got()) >= 60 })
	end()
	if diff := cmp.Diff(sequence(60), in.got()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if left := names(t, directory(o)); len(left) > 0 {
		t.Errorf("left in the spool: %q", left)
	}
	if s := f.Status()[0]; s.Spool.Bytes != 0 || s.Spool.Payloads != 0 || s.QueueBytes != 0 || s.DeliveredPts != 60 || s.DroppedPts != 0 {
		t.Errorf("status %+v, spool %+v", s, *s.Spool)
	}
}

// TestSpoolBound holds that the oldest payloads go when the spool is full, each
// counted, at once and at a start with a smaller bound.
func TestSpoolBound(t *testing.T) {
	in := newIntake(t, nil)
	o := options(in.URL)
	o.SpoolDir, o.SpoolBytes = t.TempDir(), 25*block
	s := strand(t, o, 0, 100)
	// The oldest may be on its way when room is made: then it stays a little longer.
	if s.Spool.Payloads != 25 || s.Kinds[0].DroppedPoints["spool_full"] != 75 || s.DroppedPts != 75 {
		t.Errorf("status %+v, spool %+v", s, *s.Spool)
	}
	o.SpoolBytes = 10 * block
	f := mustNew(t, o)
	_, end := run(t, f)
	eventually(t, "all arrives", func() bool { return len(in.got()) >= 10 })
	end()
	if diff := cmp.Diff(sequence(100)[90:], in.got()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s := f.Status()[0]; s.DroppedPts != 15 || s.DeliveredPts != 10 {
		t.Errorf("status %+v", s)
	}
}

// TestDamage holds what is found in a spool that a crash, a disk or a person has
// been at: the good is delivered, the torn counted and removed, the foreign left
// alone.
func TestDamage(t *testing.T) {
	in := newIntake(t, nil)
	o := options(in.URL)
	o.SpoolDir = t.TempDir()
	var log journal
	strand(t, o, 0, 7)
	dir := directory(o)
	files := names(t, dir)
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, files[5]))
	if err != nil {
		t.Fatal(err)
	}
	write(files[0], nil)                                      // the machine lost power
	write(files[1], []byte("other content"))                  // the disk lied
	write(files[2]+unfinished, []byte("begun"))               // killed in the middle of a write
	_ = os.Remove(filepath.Join(dir, files[2]))               //
	_ = os.Remove(filepath.Join(dir, files[3]))               // a person
	write(files[4], make([]byte, MaxCompressed+1))            // larger than any payload
	write(files[5]+unfinished, whole)                         // killed before it had its name
	_ = os.Remove(filepath.Join(dir, files[5]))               //
	write("README", []byte("not ours"))                       //
	write(strings.Replace(files[6], "-1-", "-01-", 1), whole) // not as we write it
	if err := os.Mkdir(filepath.Join(dir, strings.Replace(files[6], "-1-", "-2-", 1)), 0o700); err != nil {
		t.Fatal(err)
	}

	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	f := mustNew(t, o)
	_, end := run(t, f)
	eventually(t, "the good arrive", func() bool { return len(in.got()) >= 2 })
	end()
	if diff := cmp.Diff([]int64{5, 6}, in.got()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s := f.Status()[0]
	if s.Kinds[0].DroppedPoints["spool_unreadable"] != 4 || s.DroppedPts != 4 || s.Spool.Foreign != 3 || s.QueuePayloads != 0 {
		t.Errorf("status %+v, spool %+v: want 4 of 5 lost counted (that a file was removed leaves no trace), 3 foreign", s, *s.Spool)
	}
	if left := names(t, dir); len(left) != 3 {
		t.Errorf("left: %q, want what is foreign", left)
	}
	if !strings.Contains(log.String(), "a payload in the spool is lost") || strings.Contains(log.String(), testKey) {
		t.Errorf("log:\n%s", &log)
	}
}

// TestNoDisk holds that a directory that cannot be used is said once and costs
// nothing but the spool, and that it is used as soon as it can be.
func TestNoDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &intake{}
		w, o := serve(t, in)
		w.setDown(true)
		o.SpoolDir = filepath.Join(dir, "spool")
		var log journal
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		if err := os.WriteFile(o.SpoolDir, []byte("a file is in the way"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := mustNew(t, o)
		c, end := run(t, f)
		for i := range int64(5) {
			c <- batch(i)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if s := f.Status()[0]; !strings.Contains(s.Spool.Error, "not a directory") || s.QueuePayloads != 5 || s.Spool.Payloads != 0 || s.DroppedPts != 0 {
			t.Errorf("without a directory: %+v, spool %+v", s, *s.Spool)
		}
		if n := strings.Count(log.String(), "no spool on disk"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, &log)
		}
		if err := os.Remove(o.SpoolDir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(spoolRetry)
		synctest.Wait()
		if s := f.Status()[0]; s.Spool.Error != "" || s.Spool.Payloads != 5 || s.QueueBytes != 0 {
			t.Errorf("with a directory: %+v, spool %+v", s, *s.Spool)
		}
		if err := os.RemoveAll(directory(o)); err != nil { // somebody clears it
			t.Fatal(err)
		}
		c <- batch(5)
		synctest.Wait()
		if s := f.Status()[0]; s.Spool.Error != "" || s.Spool.Payloads != 6 {
			t.Errorf("with a cleared directory: %+v, spool %+v", s, *s.Spool)
		}
		w.setDown(false)
		time.Sleep(5 * time.Minute)
		end()
		if diff := cmp.Diff([]int64{5}, in.got()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if s := f.Status()[0]; s.Kinds[0].DroppedPoints["spool_unreadable"] != 5 {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// TestOneOwner holds that two agents do not use one directory: the second goes
// on in memory, and takes over what the first leaves behind, before its own.
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &intake{}
		w, o := serve(t, in)
		w.setDown(true)
		o.SpoolDir = dir
		first, second := mustNew(t, o), mustNew(t, o)
		a, endA := run(t, first)
		a <- batch(0)
		synctest.Wait()
		b, endB := run(t, second)
		b <- batch(1)
		synctest.Wait()
		if s := second.Status()[0]; !strings.Contains(s.Spool.Error, "another process holds it") || s.Spool.Payloads != 0 || s.QueuePayloads != 1 {
			t.Errorf("the second: %+v, spool %+v", s, *s.Spool)
		}
		endA()
		time.Sleep(spoolRetry)
		synctest.Wait()
		if s := second.Status()[0]; s.Spool.Error != "" || s.Spool.Payloads != 2 {
			t.Errorf("the second, later: %+v, spool %+v", s, *s.Spool)
		}
		w.setDown(false)
		time.Sleep(5 * time.Minute)
		endB()
		if diff := cmp.Diff(sequence(2), in.got()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestAdopt holds whose spool a changed key gets: that of the one key the intake
// had before; and no other's.
func TestAdopt(t *testing.T) {
	const old, other = "old00000000000000000000000000000", "other000000000000000000000000000"
	for about, tt := range map[string]struct {
		before, now []string // keys of the one intake
		arrive      int
		warned      int
	}{
		"one key replaced":       {[]string{old}, []string{testKey}, 2, 0},
		"a second key added":     {[]string{old}, []string{testKey, other}, 0, 1},
		"two keys became one":    {[]string{old, other}, []string{testKey}, 0, 2},
		"the same":               {[]string{testKey}, []string{testKey}, 2, 0},
		"another key taken away": {[]string{testKey, other}, []string{testKey}, 2, 1},
	} {
		t.Run(about, func(t *testing.T) {
			in := newIntake(t, nil)
			o := options(in.URL)
			o.SpoolDir = t.TempDir()
			keys := func(keys []string) (out []Endpoint) {
				for _, k := range keys {
					out = append(out, Endpoint{URL: in.URL, APIKey: k})
				}
				return out
			}
			o.Endpoints = keys(tt.before)
			strand(t, o, 0, 2)
			var log journal
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			o.Endpoints = keys(tt.now)
			f := mustNew(t, o)
			_, end := run(t, f)
			end()
			if len(in.got()) != tt.arrive || in.arrived(other) > 0 {
				t.Errorf("%d points arrive, %d of another key, want %d and none", len(in.got()), in.arrived(other), tt.arrive)
			}
			if n := strings.Count(log.String(), "that is not configured"); n != tt.warned {
				t.Errorf("%d directories named, want %d:\n%s", n, tt.warned, &log)
			}
		})
	}
}

func (in *intake) arrived(key string) (n int) {
	for _, r := range in.requests() {
		if r.header.Get("DD-API-KEY") == key {
			n++
		}
	}
	return n
}

// TestNoKeyOnDisk looks for the key in all that a spool writes.
func TestNoKeyOnDisk(t *testing.T) {
	o := options("http://127.0.0.1:1/?api_key=" + testKey)
	o.SpoolDir, o.Compression = t.TempDir(), "none"
	strand(t, o, 0, 1)
	seen := 0
	err := filepath.WalkDir(o.SpoolDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		content, err := os.ReadFile(path)
		if strings.Contains(path, testKey) || bytes.Contains(content, []byte(testKey)) {
			t.Errorf("%s holds the key", path)
		}
		info, statErr := d.Info()
		if statErr != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), statErr)
		}
		return err
	})
	if err != nil || seen != 2 { // the payload and the lock
		t.Errorf("%d files, %v", seen, err)
	}
}

func TestFileNames(t *testing.T) {
	for name, want := range map[string]file{
		"20231114T221320.000000000Z-series-1000-00c0ffee.zst":      {1_700_000_000_000_000_000, kindSeries, 1000, 0xc0ffee, "zstd"},
		"20231114T221320.123456789Z-service_checks-1-ffffffff.raw": {1_700_000_000_123_456_789, kindChecks, 1, 0xffffffff, ""},
		"20231114T221320.123456789Z-sketches-0-00000000.zz":        {1_700_000_000_123_456_789, kindSketches, 0, 0, "deflate"},
		"20231114T221320.123456789Z-events-2-00000000.gz":          {1_700_000_000_123_456_789, kindEvents, 2, 0, "gzip"},
		"20231114T221320.000000000Z-series-1000-00c0ffee.zst.tmp":  {1_700_000_000_000_000_000, kindSeries, 1000, 0xc0ffee, "zstd"},
		"":     {},
		"lock": {},
		"20231114T221320.000000000Z-series-1000-c0ffee.zst":                   {}, // a short sum
		"20231114T221320.000000000Z-series-1000-00C0FFEE.zst":                 {},
		"20231114T221320.0Z-series-1000-00c0ffee.zst":                         {},
		"20231114T221320.000000000Z-series-+1-00c0ffee.zst":                   {},
		"20231114T221320.000000000Z-series--1-00c0ffee.zst":                   {},
		"20231114T221320.000000000Z-logs-1-00c0ffee.zst":                      {},
		"20231114T221320.000000000Z-series-1-00c0ffee.txt":                    {},
		"20231114T221320.000000000Z-series-1-00c0ffee":                        {},
		"20231114T221320.000000000Z-series-99999999999-00c0ffee.zst":          {},
		"99991114T221320.000000000Z-series-1-00c0ffee.zst":                    {}, // not in nanoseconds
		"20231114T221320.000000000Z-series-1000-00c0ffee.zst.tmp.tmp":         {},
		"../20231114T221320.000000000Z-series-1000-00c0ffee.zst":              {},
		"20231114T221320.000000000Z-series-1000-00c0ffee.zst/../../etc/hosts": {},
	} {
		got, ok := parseFile(name)
		if !ok {
			got = file{}
		}
		if got != want || ok != (want != file{}) {
			t.Errorf("%q: %+v, %v", name, got, ok)
		}
		if ok && got.String() != strings.TrimSuffix(name, unfinished) {
			t.Errorf("%q is written as %q", name, got)
		}
	}
}

// FuzzSpool puts one file of any name and content into a spool and reads it back:
// nothing but a file that is what its name says is ever sent, and nothing stops
// the start.
func FuzzSpool(f *testing.F) {
	good := file{1_700_000_000_000_000_000, kindSeries, 1, crc32.Checksum([]byte("body"), castagnoli), "zstd"}.String()
	for _, name := range []string{good, good + unfinished, "README", lockName, good[:30]} {
		for _, content := range []string{"body", "", "torn"} { // TestDamage has what is too large
			f.Add(name, []byte(content))
		}
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if name == "" || len(name) > 200 || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return
		}
		sp, found, err := openSpool(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer sp.close()
		if n := len(found.entries) + len(found.torn) + found.foreign; n != 1 && name != lockName {
			t.Fatalf("%q: found %+v", name, found)
		}
		for _, e := range found.entries {
			body, err := sp.read(e.file)
			if sum := crc32.Checksum(content, castagnoli); (err == nil) != (sum == e.file.sum) || err == nil && !bytes.Equal(body, content) {
				t.Fatalf("%q with the sum %08x: read %q, %v", name, sum, body, err)
			}
		}
	})
}

// TestQueueOrder holds the queue to its order when files come late, halves are
// put in, and kinds are mixed.
func TestQueueOrder(t *testing.T) {
	q := newQueue(1<<20, 1<<20)
	now := time.Unix(1000, 0)
	for i := range 4 {
		k := kind(i % 2)
		q.push(&payloadItem{kind: k, body: []byte{byte(i)}, points: 1, queued: now}) // one instant
	}
	e, _ := q.next(t.Context(), kindSeries)
	q.restore([]*entry{{size: 1, file: file{at: 5, kind: kindSeries}}, {size: 1, file: file{at: 6, kind: kindSketches}}})
	first, second, ok := q.room(e)
	if !ok || first != now.UnixNano() || second <= first || second >= now.UnixNano()+2*tick {
		t.Fatalf("room %d, %d, %v", first, second, ok)
	}
	p := &payloadItem{kind: kindSeries, body: []byte{9}, queued: now}
	q.replace(e, []*entry{newEntry(p, first), newEntry(p, second)})
	q.close()
	for k := range kind(2) {
		var got []int64
		for e, _ := q.next(context.Background(), k); e != nil; e, _ = q.next(context.Background(), k) {
			got = append(got, e.file.at)
			q.done(e)
		}
		if want := []int{4, 3}[k]; len(got) != want || !slices.IsSorted(got) {
			t.Errorf("%s: %v, want %d in order", k, got, want)
		}
	}
	if d := q.depth(); d != (depth{}) {
		t.Errorf("at the end: %+v", d)
	}
}
