package forward

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// spool is one endpoint's directory: one file for each payload. It is held by
// one process at a time. Its methods may be called at the same time for
// different files.
type spool struct {
	dir  string
	lock *os.File
}

// lockName is the file that a process holds locked while it uses the directory.
const lockName = "lock"

// found is what a spool's directory holds.
type found struct {
	entries []*entry // in the order of delivery
	torn    []file   // that a crash left unfinished; they are removed
	foreign int      // that are no payload's; they are left alone
}

// errTorn reports a file that is not what its name says: a crash of the machine,
// or a broken disk.
var errTorn = errors.New("the file is torn: its checksum is another than its name's")

// openSpool takes dir, which it makes if need be, and lists what it holds.
func openSpool(dir string) (*spool, *found, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the spool's directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, nil, fmt.Errorf("take the spool %s: %w", dir, err)
	}
	s := &spool{dir, lock}
	f, err := s.list()
	if err != nil {
		s.close()
		return nil, nil, fmt.Errorf("list the spool %s: %w", dir, err)
	}
	return s, f, nil
}

func (s *spool) close() { _ = s.lock.Close() } // which unlocks it

func (s *spool) list() (*found, error) {
	dir, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	out := &found{}
	for _, d := range dir {
		f, ours := parseFile(d.Name())
		info, err := d.Info()
		switch {
		case d.Name() == lockName || errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !ours || !info.Mode().IsRegular():
			out.foreign++
		case info.Size() == 0 || info.Size() > int64(routes[f.kind].maxBody) || !s.finish(d.Name(), f):
			out.torn = append(out.torn, f)
			_ = os.Remove(filepath.Join(s.dir, d.Name()))
		default:
			out.entries = append(out.entries, &entry{file: f, size: int(info.Size())})
		}
	}
	slices.SortStableFunc(out.entries, func(a, b *entry) int { return cmp.Compare(a.file.at, b.file.at) })
	return out, nil
}

// finish gives a file that was written, but not yet named, its name. It reports
// whether name is now a payload's: only an unfinished file is read for that.
func (s *spool) finish(name string, f file) bool {
	if !strings.HasSuffix(name, unfinished) {
		return true
	}
	_, err := s.readFile(name, f)
	return err == nil && os.Rename(filepath.Join(s.dir, name), s.path(f)) == nil
}

func (s *spool) path(f file) string { return filepath.Join(s.dir, f.String()) }

// write makes f's file. It is there as a whole or not at all, whenever the
// process is killed; with sync also when the machine is.
func (s *spool) write(f file, body []byte, sync bool) error {
	path := s.path(f)
	w, err := os.OpenFile(path+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // somebody has cleared the directory
		if err = os.MkdirAll(s.dir, 0o700); err == nil {
			w, err = os.OpenFile(path+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("spool a payload: %w", err)
	}
	_, err = w.Write(body)
	if err == nil && sync {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(path+unfinished, path)
	}
	if err != nil {
		_ = os.Remove(path + unfinished)
		return fmt.Errorf("spool a payload: %w", err)
	}
	return nil
}

// read returns the body of f.
func (s *spool) read(f file) ([]byte, error) {
	body, err := s.readFile(f.String(), f)
	if err != nil {
		return nil, fmt.Errorf("read a payload of the spool: %w", err)
	}
	return body, nil
}

func (s *spool) readFile(name string, f file) ([]byte, error) {
	r, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	body, err := io.ReadAll(io.LimitReader(r, int64(routes[f.kind].maxBody)+1))
	if err != nil {
		return nil, err
	}
	if len(body) > routes[f.kind].maxBody || crc32.Checksum(body, castagnoli) != f.sum {
		return nil, fmt.Errorf("%s: %w", name, errTorn)
	}
	return body, nil
}

func (s *spool) remove(f file) error {
	err := os.Remove(s.path(f))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("remove a payload from the spool: %w", err)
}

// block is what the smallest file takes of a disk. Counting in it bounds the
// number of files, too.
const block = 4096

func onDisk(size int) int64 { return (int64(size) + block - 1) / block * block }
