package backend

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/metric/payload"
)

// snapshotRoute makes a snapshot. It takes both keys, as it changes what is on
// the disk; the health port, where nobody is asked for one, has no such route.
const snapshotRoute = "/api/kelpie/v1/snapshot"

// maxSnapshotBody bounds both bodies of the route, in bytes.
const maxSnapshotBody = 64 << 10

// snapshotRequest is the body of POST /api/kelpie/v1/snapshot. The answer is a
// store.Snapshot.
type snapshotRequest struct {
	Name string `json:"name"`
}

func (b *backend) snapshot(st *store.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := b.keys.Read(r); err != nil {
			answer.Error(w, http.StatusForbidden, err.Error())
			return
		}
		var req snapshotRequest
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSnapshotBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&req); err != nil {
			answer.Error(w, http.StatusBadRequest, `body: expected {"name": "…"}: `+err.Error())
			return
		}
		// Waiting for a compaction, and copying, may take longer than a request may.
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})); err != nil {
			b.log.Debug("a snapshot's request keeps its time-outs", "error", err)
		}
		made, err := st.Snapshot(r.Context(), req.Name)
		if err == nil {
			answer.JSON(w, http.StatusOK, made)
			return
		}
		code := http.StatusInternalServerError
		switch {
		case errors.Is(err, store.ErrSnapshotName):
			code = http.StatusBadRequest
		case errors.Is(err, store.ErrSnapshotExists), errors.Is(err, store.ErrSnapshotBusy):
			code = http.StatusConflict
		case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrNoSpace):
			code = http.StatusServiceUnavailable
		}
		if code >= http.StatusInternalServerError {
			b.log.Error("cannot make a snapshot", "name", req.Name, "error", err)
		}
		answer.Error(w, code, err.Error())
	}
}

// Snapshot asks the backend that runs on this machine with the configuration c
// to make the named snapshot.
func (c *Config) Snapshot(ctx context.Context, name string) (*store.Snapshot, error) {
	api, err := c.APIKeys.First()
	if err != nil {
		return nil, fmt.Errorf("ask for a snapshot: API key: %w (set DD_API_KEY, KELPIE_API_KEYS or KELPIE_API_KEYS_FILE)", err)
	}
	app, err := c.AppKeys.First()
	if err != nil {
		return nil, fmt.Errorf("ask for a snapshot: application key: %w (set DD_APP_KEY, KELPIE_APP_KEYS or KELPIE_APP_KEYS_FILE)", err)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("KELPIE_LISTEN %q: %w", c.Listen, err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	url := "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + snapshotRoute
	body, err := json.Marshal(snapshotRequest{Name: name})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for a snapshot: %w", err)
	}
	req.Header.Set("DD-API-KEY", api)
	req.Header.Set("DD-APPLICATION-KEY", app)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for a snapshot: %w (is the backend running, and is KELPIE_LISTEN its address?)", err)
	}
	defer func() { _ = resp.Body.Close() }()
	return readSnapshot(resp)
}

func readSnapshot(resp *http.Response) (*store.Snapshot, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxSnapshotBody))
	if err != nil {
		return nil, fmt.Errorf("read the answer to a snapshot: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var refused payload.ErrorBody
		if err := json.Unmarshal(text, &refused); err != nil || len(refused.Errors) == 0 {
			return nil, fmt.Errorf("make a snapshot: HTTP %s", resp.Status)
		}
		return nil, fmt.Errorf("make a snapshot: %s", strings.Join(refused.Errors, "; "))
	}
	var made store.Snapshot
	if err := json.Unmarshal(text, &made); err != nil {
		return nil, fmt.Errorf("decode the answer to a snapshot: %w", err)
	}
	return &made, nil
}

// Restore puts a snapshot in place of the empty data directory of c: the
// snapshot of that name in it, or the one in the directory from.
func (c *Config) Restore(from string) (store.Snapshot, error) {
	if !strings.ContainsRune(from, filepath.Separator) {
		from = filepath.Join(c.DataDir, "snapshots", from)
	}
	return store.Restore(c.DataDir, from)
}
