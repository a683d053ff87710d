package forward

import (
	"bytes"
	"time"
)

// payloadVersion is the version of Datadog's payload definition that
// metric/payload follows.
const payloadVersion = "5.0.215"

// payloadItem is one request body. Several queues share it; nobody changes it.
type payloadItem struct {
	kind     kind
	body     []byte
	encoding string // of Content-Encoding; "" for none
	points   int
	queued   time.Time
}

// encoder turns items into payloads. It streams: beside what it returns it
// holds the one payload that is being written, compressed, and one item. It has
// one owner.
type encoder struct {
	encoding string
	w        compressor
	out      bytes.Buffer
	pending  int    // bytes written since the last flush: as many may still come out
	item     []byte // reused
}

func newEncoder(compression string) (*encoder, error) {
	e := &encoder{}
	var err error
	e.w, e.encoding, err = newCompressor(compression, &e.out)
	return e, err
}

// encode splits l into payloads that keep the intake's bounds and hands each to
// emit. tooLarge counts the points of items that exceed a bound alone, items
// themselves.
func (e *encoder) encode(l list, emit func(*payloadItem)) (tooLarge, items int, err error) {
	for i := 0; i < l.n; {
		n, points, err := e.fill(l, i)
		if err != nil {
			return tooLarge, items, err
		}
		if n > 0 && e.out.Len() > l.bounds.maxBody {
			// The flush that asked for room for a second item took the bytes
			// that the first one lacks; alone it may fit.
			alone := l
			alone.n = i + 1
			if n, points, err = e.fill(alone, i); err != nil {
				return tooLarge, items, err
			}
		}
		if n == 0 || e.out.Len() > l.bounds.maxBody {
			tooLarge += l.points(i)
			items++
			i++
			continue
		}
		emit(&payloadItem{kind: l.kind, body: bytes.Clone(e.out.Bytes()), encoding: e.encoding, points: points})
		i += n
	}
	return tooLarge, items, nil
}

// fill writes as many items to e.out, from item i on, as one payload may hold:
// none when the first is too large, and the first alone when only its
// compressed size may tell.
func (e *encoder) fill(l list, i int) (n, points int, err error) {
	r := l.bounds
	e.out.Reset()
	e.w.Reset(&e.out)
	e.pending = 0
	for raw := len(l.end); i+n < l.n; n++ {
		p := l.points(i + n)
		if r.maxPoints > 0 && points+p > r.maxPoints {
			break
		}
		e.item = l.item(e.item[:0], i+n, n == 0)
		if raw += len(e.item); raw > r.maxRaw {
			break
		}
		if n > 0 {
			room, err := e.hasRoom(len(e.item)+len(l.end), r.maxBody)
			if err != nil {
				return 0, 0, err
			}
			if !room {
				break
			}
		}
		if err := e.write(e.item); err != nil {
			return 0, 0, err
		}
		points += p
	}
	if err := e.write(l.end); err != nil {
		return 0, 0, err
	}
	return n, points, e.w.Close()
}

func (e *encoder) write(b []byte) error {
	e.pending += len(b)
	_, err := e.w.Write(b)
	return err
}

// hasRoom reports whether n more bytes keep e.out within limit, whatever they
// are. What the compressor holds back is asked for only when it matters.
func (e *encoder) hasRoom(n, limit int) (bool, error) {
	if e.out.Len()+worst(e.pending+n) <= limit {
		return true, nil
	}
	if err := e.w.Flush(); err != nil {
		return false, err
	}
	e.pending = 0
	return e.out.Len()+worst(n) <= limit, nil
}

// worst is the most that n bytes become by any of the compressors, with what
// they write at a flush and at the end: blocks that do not compress are stored,
// with a few bytes for each 64 KiB or less.
func worst(n int) int { return n + n/512 + 128 }
