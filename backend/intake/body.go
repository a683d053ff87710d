package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// limits of one route's body in bytes, as Datadog's intake has them.
type limits struct {
	wire    int64 // as received
	decoded int64 // after decompression
}

var (
	v1Limits      = limits{wire: 3_200_000, decoded: 62_914_560}
	v2Limits      = limits{wire: 512_000, decoded: 5_242_880}
	sketchLimits  = limits{wire: 3_200_000, decoded: 5_242_880} // agents send up to 2.5 MiB, of 4 MiB
	recordLimits  = limits{wire: 3_200_000, decoded: 5_242_880} // agents send up to 2.5 MiB, of 4 MiB
	otlpLimits    = limits{wire: 4 << 20, decoded: 8 << 20}     // gRPC's own limit of a message is 4 MiB
	writeLimits   = limits{wire: 4 << 20, decoded: 16 << 20}    // Prometheus sends 2000 samples at a time
	ignoredLimits = limits{wire: 16 << 20, decoded: 0}
)

// errTooBig is the 413 for a body over its limit.
func errTooBig(what string, limit int64) error {
	return &refusal{http.StatusRequestEntityTooLarge, reasonTooBig,
		[]string{"Payload too big", fmt.Sprintf("the %s body is larger than %d bytes", what, limit)}}
}

var errBusy = &refusal{http.StatusServiceUnavailable, reasonBusy, []string{"intake is busy: send it again later"}}

// receive reads the body as it is on the wire. The caller calls done, also
// after an error, when it needs the body no more.
func (in *Intake) receive(w http.ResponseWriter, r *http.Request, lim limits) (body []byte, done func(), err error) {
	done = func() {}
	if r.ContentLength > lim.wire {
		return nil, done, errTooBig("received", lim.wire)
	}
	size := r.ContentLength
	if size < 0 {
		size = lim.wire
	}
	if err := acquire(r.Context(), in.bodies.Acquire, size); err != nil {
		return nil, done, err
	}
	done = func() { in.bodies.Release(size) }
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err = buf.ReadFrom(http.MaxBytesReader(w, r.Body, lim.wire))
	return buf.Bytes(), done, readError(err, lim.wire)
}

func readError(err error, limit int64) error {
	var tooBig *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooBig):
		return errTooBig("received", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{http.StatusRequestTimeout, reasonTimeout, []string{"Request timeout"}}
	default:
		return &refusal{http.StatusBadRequest, reasonMalformed, []string{"cannot read the body: " + err.Error()}}
	}
}

// acquire waits a little for n of a semaphore.
func acquire(ctx context.Context, from func(context.Context, int64) error, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if from(ctx, n) != nil {
		return errBusy
	}
	return nil
}

// inflate undoes the content encoding. The caller calls release, also after an
// error, when it needs the body no more.
//
// Most bodies grow a few times; only one that turns out to grow more takes the
// share of memory that the worst allowed body needs, so that a bomb costs its
// sender's turn and not its neighbours'.
func (in *Intake) inflate(r *http.Request, wire []byte, lim limits) (body []byte, release func(), err error) {
	guess := min(lim.decoded, 16*int64(len(wire))+64<<10)
	for _, size := range [2]int64{guess, lim.decoded} {
		if err := acquire(r.Context(), in.decoding.Acquire, size); err != nil {
			return nil, func() {}, err
		}
		body, err = decompress(r.Header.Get("Content-Encoding"), wire, size)
		if !errors.Is(err, errOverSize) {
			return body, func() { in.decoding.Release(size) }, encodingError(err)
		}
		in.decoding.Release(size)
	}
	return nil, func() {}, errTooBig("decompressed", lim.decoded)
}

func encodingError(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{http.StatusBadRequest, reasonEncoding, []string{"Payload is not in the expected format: " + err.Error()}}
}

// errOverSize reports that there is more than was asked for.
var errOverSize = errors.New("larger than allowed")

// decompress undoes the encoding, up to limit bytes.
func decompress(encoding string, wire []byte, limit int64) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		if int64(len(wire)) > limit {
			return nil, errOverSize
		}
		return wire, nil
	case "zstd", "zstd1":
		return unzstd(wire, limit)
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(bytes.NewReader(wire))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return readUpTo("gzip", zr, limit)
	case "deflate":
		return undeflate(wire, limit)
	case "snappy":
		return unsnappy(wire, limit)
	default:
		return nil, fmt.Errorf("content encoding %.40q is not supported: use zstd, gzip or deflate", encoding)
	}
}

// unsnappy reads snappy's block format, which says how large it grows.
func unsnappy(wire []byte, limit int64) ([]byte, error) {
	n, err := snappy.DecodedLen(wire)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if int64(n) > limit {
		return nil, errOverSize
	}
	body, err := snappy.Decode(nil, wire)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	return body, nil
}

// undeflate reads RFC 1950 as HTTP demands it, or RFC 1951 as some clients send.
func undeflate(wire []byte, limit int64) ([]byte, error) {
	zr, err := zlib.NewReader(bytes.NewReader(wire))
	if err == nil {
		body, zerr := readUpTo("zlib", zr, limit)
		if zerr == nil || errors.Is(zerr, errOverSize) {
			return body, zerr
		}
		err = zerr
	}
	body, rerr := readUpTo("deflate", flate.NewReader(bytes.NewReader(wire)), limit)
	if rerr != nil && !errors.Is(rerr, errOverSize) && !errors.Is(err, zlib.ErrHeader) {
		return nil, err // it did begin like zlib
	}
	return body, rerr
}

// zstdReaders keeps decoders: each holds large tables.
var zstdReaders = sync.Pool{New: func() any {
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(uint64(v1Limits.decoded)+1<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return zr
}}

func unzstd(wire []byte, limit int64) ([]byte, error) {
	zr := zstdReaders.Get().(*zstd.Decoder)
	defer func() {
		_ = zr.Reset(nil) // lets go of the body
		zstdReaders.Put(zr)
	}()
	if err := zr.Reset(bytes.NewReader(wire)); err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return readUpTo("zstd", io.NopCloser(zr), limit)
}

func readUpTo(name string, r io.ReadCloser, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	_ = r.Close()
	switch {
	case n > limit:
		return nil, errOverSize
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return buf.Bytes(), nil
}
