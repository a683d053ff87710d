package forward

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Compressions are the values of Options.Compression.
var Compressions = []string{"zstd", "zlib", "gzip", "none"}

// compressor is what compresses a stream. Flush writes out all that it holds
// back.
type compressor interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// newCompressor returns a compressor by its name in Compressions, and its
// Content-Encoding.
func newCompressor(name string, w io.Writer) (compressor, string, error) {
	switch name {
	case "zstd":
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10))
		return z, "zstd", err
	case "zlib":
		return zlib.NewWriter(w), "deflate", nil // HTTP's name for the zlib format
	case "gzip":
		return gzip.NewWriter(w), "gzip", nil
	case "none":
		return &plain{w}, "", nil
	default:
		return nil, "", fmt.Errorf("compression %q: expected zstd, zlib, gzip or none", name)
	}
}

// plain compresses nothing.
type plain struct{ io.Writer }

func (*plain) Close() error        { return nil }
func (*plain) Flush() error        { return nil }
func (p *plain) Reset(w io.Writer) { p.Writer = w }

// decompress returns the content of body, which is of an encoding of
// newCompressor's, when it is no more than limit bytes.
func decompress(body []byte, encoding string, limit int) ([]byte, error) {
	var r io.Reader
	var err error
	switch encoding {
	case "zstd":
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)+1))
		if err == nil {
			defer d.Close()
		}
		r = d
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	default:
		r = bytes.NewReader(body)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress a payload: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("decompress a payload: %w", err)
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("decompress a payload: more than %d bytes", limit)
	}
	return raw, nil
}

// compressionOf is the name of an encoding's compressor.
func compressionOf(encoding string) string {
	switch encoding {
	case "deflate":
		return "zlib"
	case "":
		return "none"
	default:
		return encoding
	}
}
