package forward

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKeyRotation turns a key's file over while payloads flow, in each order of
// the two things that a rotation is: the file changes, the old key is revoked.
func TestKeyRotation(t *testing.T) {
	const old, fresh = "old0000000000000000000000000000", "new0000000000000000000000000000"
	for about, tt := range map[string]struct {
		revoke, write time.Duration // after the start
		dropped       map[string]uint64
	}{
		"file first":          {60 * time.Second, 30 * time.Second, nil},
		"together":            {30 * time.Second, 30 * time.Second, nil},
		"revoked first":       {30 * time.Second, 150 * time.Second, nil},
		"the file comes late": {30 * time.Second, 30*time.Second + keyGrace + 101*time.Second, map[string]uint64{"forbidden": 42}}, // batches 3 to 44,
	} {
		t.Run(about, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			write := func(key string) {
				if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("\n  " + old + "\n")
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				in := &intake{}
				in.judge = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
					want := old
					if time.Since(start) >= tt.revoke {
						want = fresh
					}
					ok := r.Header.Get("DD-API-KEY") == want || time.Since(start) < max(tt.revoke, tt.write) && tt.write < tt.revoke && r.Header.Get("DD-API-KEY") == fresh
					if !ok {
						w.WriteHeader(http.StatusForbidden)
						_, _ = fmt.Fprintf(w, "not %s", r.Header.Get("DD-API-KEY"))
					}
					return !ok
				}
				_, o := serve(t, in)
				o.Endpoints[0] = Endpoint{URL: "http://intake", APIKeyFile: path}
				var log journal
				o.Log = testLog(&log)
				f := mustNew(t, o)
				c, end := run(t, f)
				written, unready := false, false
				for i := range int64(60) {
					if !written && time.Since(start) >= tt.write {
						write("") // a moment in which it is empty
						c <- batch(i)
						synctest.Wait()
						write(fresh)
						written = true
					} else {
						c <- batch(i)
					}
					time.Sleep(10 * time.Second)
					synctest.Wait()
					unready = unready || f.Ready() != nil
				}
				time.Sleep(5 * time.Minute)
				end()
				s := f.Status()[0]
				if diff := cmp.Diff(tt.dropped, s.Kinds[0].DroppedPoints); diff != "" {
					t.Errorf("dropped (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(sequence(60)[s.DroppedPts:], in.got()[len(in.got())-int(60-s.DroppedPts):]); s.DroppedPts == 0 && diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if s.DeliveredPts+s.DroppedPts != 60 || s.APIKey != fingerprint(fresh) || f.Ready() != nil {
					t.Errorf("status %+v, ready %v", s, f.Ready())
				}
				if late := tt.write > tt.revoke; unready != late {
					t.Errorf("was unready: %v, want %v", unready, late)
				}
				for _, text := range []string{log.String(), s.LastError} {
					if strings.Contains(text, old) || strings.Contains(text, fresh) {
						t.Errorf("%q shows a key", text)
					}
				}
				in.check(t)
			})
		})
	}
}

// TestNoKeyYet holds that payloads wait for a key's file, and that its mend is
// said.
func TestNoKeyYet(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &intake{}
		_, o := serve(t, in)
		path := filepath.Join(dir, "key")
		o.Endpoints[0] = Endpoint{URL: "http://intake", APIKeyFile: path}
		f := mustNew(t, o)
		c, end := run(t, f)
		c <- batch(0)
		for _, content := range []string{"", " \n", "a b", "k\x00", strings.Repeat(" ", maxKeyFile) + "k"} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if s := f.Status()[0]; s.QueuePayloads != 1 || !strings.Contains(s.LastError, "put the intake's key into "+path) || s.APIKey != "none yet" {
				t.Errorf("file %.10q: status %+v", content, s)
			}
		}
		if err := os.WriteFile(path, []byte(testKey), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		end()
		if diff := cmp.Diff(sequence(1), in.got()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
