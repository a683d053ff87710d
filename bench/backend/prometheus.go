package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// peerTask is to take remote write into a TSDB in Dir at Addr.
type peerTask struct{ Dir, Addr string }

// openTSDB opens a TSDB with the settings that Prometheus gives its own.
func openTSDB(dir string, reg prometheus.Registerer) (*tsdb.DB, error) {
	o := tsdb.DefaultOptions()
	o.WALCompression = compression.Snappy
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), reg, o, nil)
	if err != nil {
		return nil, fmt.Errorf("open the TSDB in %s: %w", dir, err)
	}
	return db, nil
}

// servePrometheus is the peer of the intake: nothing but a TSDB behind the write
// handler that Prometheus has.
func servePrometheus(ctx context.Context, t peerTask) (err error) {
	reg := prometheus.NewRegistry()
	db, err := openTSDB(t.Dir, reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	accepted := remoteapi.MessageTypes{remoteapi.WriteV1MessageType}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/write", remote.NewWriteHandler(slog.New(slog.DiscardHandler), reg, db, accepted, false, false))
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	srv := &http.Server{Addr: t.Addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
