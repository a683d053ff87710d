package image

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	passwd = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"
	caPath = "/etc/ssl/certs/ca-certificates.crt"
)

// entry is one thing in the layer; its path is its key.
type entry struct {
	header tar.Header
	source string // file to copy; empty means body
	body   []byte
}

// entries lists all that goes into the layer, parents included.
func (s Spec) entries() (map[string]entry, error) {
	all := map[string]entry{
		"/etc/passwd": {header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, body: []byte(passwd)},
		"/etc/group":  {header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, body: []byte(group)},
	}
	if s.CACertificates {
		all[caPath] = entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, body: certificates()}
	}
	for _, d := range s.Directories {
		uid, gid, err := owner(d.Owner)
		if err != nil {
			return nil, err
		}
		all[d.Path] = entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: orElse(d.Mode, 0o755), Uid: uid, Gid: gid}}
	}
	for _, f := range s.Files {
		info, err := os.Stat(f.From)
		if err != nil {
			return nil, fmt.Errorf("copy into the image: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("copy into the image: %s is not a regular file", f.From)
		}
		all[f.To] = entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: orElse(f.Mode, 0o644), Size: info.Size()}, source: f.From}
	}
	for _, l := range s.Symlinks {
		all[l.From] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: l.To}}
	}
	for _, p := range slices.Collect(maps.Keys(all)) {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
			}
		}
	}
	return all, nil
}

// writeLayer writes the layer's tar: sorted and without times or names of the
// machine it was made on, so that the same files give the same bytes.
func (s Spec) writeLayer(w io.Writer) error {
	all, err := s.entries()
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if err := writeEntry(archive, p, all[p]); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("finish the image's layer: %w", err)
	}
	return nil
}

func writeEntry(archive *tar.Writer, p string, e entry) error {
	h := e.header
	h.Name = p[1:]
	h.ModTime = time.Unix(0, 0)
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if e.source == "" {
		h.Size = int64(len(e.body))
	}
	if err := archive.WriteHeader(&h); err != nil {
		return fmt.Errorf("add %s to the image: %w", p, err)
	}
	if e.source == "" {
		if _, err := archive.Write(e.body); err != nil {
			return fmt.Errorf("add %s to the image: %w", p, err)
		}
		return nil
	}
	file, err := os.Open(e.source)
	if err != nil {
		return fmt.Errorf("add %s to the image: %w", p, err)
	}
	_, err = io.Copy(archive, file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("add %s to the image: %w", p, err)
	}
	return nil
}

// certificates returns the roots that Mozilla trusts without restriction, as
// Go's own project publishes them. Restricted roots are left out: a PEM bundle
// cannot carry a restriction.
func certificates() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer does not fail
	}
	return out.Bytes()
}

func orElse(m Mode, zero int64) int64 {
	if m == 0 {
		return zero
	}
	return int64(m)
}
