package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// Samples returns how many lines all datagrams hold.
func (l Load) Samples() int {
	n := 0
	for _, d := range l.Datagrams {
		n += Lines(d)
	}
	return n
}

// Bytes returns the datagrams' size.
func (l Load) Bytes() int {
	n := 0
	for _, d := range l.Datagrams {
		n += len(d)
	}
	return n
}

// Lines returns how many lines a datagram holds.
func Lines(datagram []byte) int {
	datagram = bytes.TrimSuffix(datagram, []byte("\n"))
	if len(datagram) == 0 {
		return 0
	}
	return bytes.Count(datagram, []byte("\n")) + 1
}

// Counters returns how many of a datagram's lines are counters.
func Counters(datagram []byte) int {
	return bytes.Count(datagram, []byte(":1|c|"))
}

// Write writes l to a file as DogStatsD frames a stream: each datagram after
// its length, four bytes, little-endian.
func (l Load) Write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write load: %w", err)
	}
	w := bufio.NewWriter(f)
	for _, d := range l.Datagrams {
		if err = binary.Write(w, binary.LittleEndian, uint32(len(d))); err != nil {
			break
		}
		if _, err = w.Write(d); err != nil {
			break
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write load %s: %w", path, err)
	}
	return nil
}

// Read reads what Write wrote.
func Read(path string) (Load, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Load{}, fmt.Errorf("read load: %w", err)
	}
	var l Load
	for len(data) > 0 {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.LittleEndian.Uint32(data)) {
			return Load{}, fmt.Errorf("read load %s: the file ends within a datagram", path)
		}
		n := binary.LittleEndian.Uint32(data)
		l.Datagrams = append(l.Datagrams, data[4:4+n:4+n])
		data = data[4+n:]
	}
	if len(l.Datagrams) == 0 {
		return Load{}, fmt.Errorf("read load %s: the file is empty", path)
	}
	return l, nil
}
