package dogstatsd

import (
	"encoding/binary"
	"errors"
)

// frameHeader is the length of a stream frame's header, which is the length of
// its lines in bytes, unsigned, least byte first.
const frameHeader = 4

// streamRead is how much of a stream is read at once, where frames are smaller.
const streamRead = 64 << 10

// streamBuffer is the size of a stream's batch: it holds one incomplete frame
// of at most size bytes from before, and more.
func streamBuffer(size int) int { return max(streamRead, 2*(frameHeader+size)) }

var (
	errFrameTooLong    = errors.New("frame is longer than the buffer")
	errFrameIncomplete = errors.New("frame is not complete")
)

// cutFrame splits the first frame off data. Its lines are limit bytes at most.
func cutFrame(data []byte, limit int) (lines, rest []byte, err error) {
	if len(data) < frameHeader {
		return nil, data, errFrameIncomplete
	}
	size, body := binary.LittleEndian.Uint32(data), data[frameHeader:]
	switch {
	case uint64(size) > uint64(limit):
		return nil, data, errFrameTooLong
	case uint64(size) > uint64(len(body)):
		return nil, data, errFrameIncomplete
	}
	return body[:size:size], body[size:], nil
}

// A remainder is the beginning of a frame whose end has not come yet. It takes
// memory only for more than a header: some clients write that by itself.
type remainder struct {
	bytes  []byte
	header [frameHeader]byte // what bytes are in, if they fit
}

// set keeps a copy of b.
func (r *remainder) set(b []byte) {
	switch {
	case len(b) == 0:
		r.bytes = nil // an idle connection keeps nothing
	case len(b) <= frameHeader:
		r.bytes = append(r.header[:0], b...)
	case cap(r.bytes) >= len(b):
		r.bytes = append(r.bytes[:0], b...)
	default:
		r.bytes = append([]byte(nil), b...)
	}
}
