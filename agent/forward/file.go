package forward

import (
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// file is what the name of a payload's file in the spool says, so that a
// directory tells all about its payloads without their being read:
//
//	20261124T001358.123456000Z-series-1000-1a2b3c4d.zst
//
// is a request body, as it is sent, of 1000 points of series that was queued at
// that time, with the CRC-32C 1a2b3c4d. Names sort in the order of delivery.
type file struct {
	at       int64 // Unix nanoseconds; unique and rising within an endpoint and kind
	kind     kind
	points   int
	sum      uint32
	encoding string // of Content-Encoding
}

const (
	fileTime   = "20060102T150405.000000000Z"
	unfinished = ".tmp" // at the end of the name while the file is written
)

// extensions are the endings of file names by Content-Encoding.
var extensions = map[string]string{"zstd": "zst", "deflate": "zz", "gzip": "gz", "": "raw"}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (f file) String() string {
	return fmt.Sprintf("%s-%s-%d-%08x.%s", time.Unix(0, f.at).UTC().Format(fileTime), f.kind, f.points, f.sum, extensions[f.encoding])
}

// parseFile is the inverse of file.String. ok is false for a name that String
// does not write.
func parseFile(name string) (f file, ok bool) {
	name = strings.TrimSuffix(name, unfinished)
	stamp, rest, _ := strings.Cut(name, "-")
	at, err := time.Parse(fileTime, stamp)
	if err != nil || at.Year() < 1970 || at.Year() > 2200 { // more does not fit into nanoseconds
		return file{}, false
	}
	f.at = at.UnixNano()
	rest, extension, _ := strings.Cut(rest, ".")
	parts := strings.Split(rest, "-")
	if len(parts) != 3 {
		return file{}, false
	}
	known := false
	for k := range kind(kinds) {
		if k.String() == parts[0] {
			f.kind, known = k, true
		}
	}
	points, err := strconv.ParseUint(parts[1], 10, 31)
	if err != nil || !known {
		return file{}, false
	}
	sum, err := strconv.ParseUint(parts[2], 16, 32)
	if err != nil {
		return file{}, false
	}
	f.points, f.sum = int(points), uint32(sum)
	for encoding, e := range extensions {
		if e == extension {
			f.encoding = encoding
		}
	}
	return f, f.String() == name
}
