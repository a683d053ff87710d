package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Write stores img in file as an OCI image layout archive that bears, like those
// of "docker save", Docker's manifest.json too. So every loader reads it.
func Write(file, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name of the image: %w", err)
	}
	parts, err := archiveParts(tag, img)
	if err != nil {
		return fmt.Errorf("describe image %s: %w", ref, err)
	}
	partial := file + ".partial"
	out, err := os.Create(partial)
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	err = writeParts(out, parts)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(partial, file)
	}
	if err != nil {
		_ = os.Remove(partial) // the first error counts
		return fmt.Errorf("write image archive %s: %w", file, err)
	}
	return nil
}

// part is one file of the archive.
type part struct {
	name string
	data []byte
	blob v1.Layer // instead of data
}

func archiveParts(tag name.Tag, img v1.Image) ([]part, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	rawManifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	rawConfig, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	docker := tarball.Descriptor{Config: blob(manifest.Config.Digest), RepoTags: []string{tag.Name()}}
	parts := []part{{name: docker.Config, data: rawConfig}, {name: blob(digest), data: rawManifest}}
	for i, layer := range layers {
		path := blob(manifest.Layers[i].Digest)
		docker.Layers = append(docker.Layers, path)
		parts = append(parts, part{name: path, blob: layer})
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []v1.Descriptor{{
		MediaType: manifest.MediaType, Size: int64(len(rawManifest)), Digest: digest,
		Annotations: map[string]string{"org.opencontainers.image.ref.name": tag.TagStr(), "io.containerd.image.name": tag.Name()},
	}}}
	for _, f := range []struct {
		name    string
		content any
	}{
		{"index.json", index},
		{"manifest.json", []tarball.Descriptor{docker}},
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
	} {
		data, err := json.Marshal(f.content)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{name: f.name, data: data})
	}
	return parts, nil
}

func writeParts(w io.Writer, parts []part) error {
	archive := tar.NewWriter(w)
	written := map[string]bool{} // two layers may be the same blob
	for _, p := range parts {
		if written[p.name] {
			continue
		}
		written[p.name] = true
		if err := writePart(archive, p); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writePart(archive *tar.Writer, p part) error {
	header := &tar.Header{Name: p.name, Mode: 0o644, Size: int64(len(p.data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	if p.blob == nil {
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(p.data)
		return err
	}
	size, err := p.blob.Size()
	if err != nil {
		return err
	}
	header.Size = size
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	body, err := p.blob.Compressed()
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, body)
	return errors.Join(err, body.Close())
}

// Read opens the only image of an archive, in the OCI layout or in Docker's
// form. The returned function frees what reading needed; the image must not be
// used after it.
func Read(file string) (v1.Image, func() error, error) {
	nothing := func() error { return nil }
	img, err := tarball.ImageFromPath(file, nil)
	if err == nil {
		return img, nothing, nil
	}
	dir, mkErr := os.MkdirTemp("", "lab-image-")
	if mkErr != nil {
		return nil, nil, fmt.Errorf("read image archive %s: %w", file, mkErr)
	}
	free := func() error { return os.RemoveAll(dir) }
	img, ociErr := readLayout(file, dir)
	if ociErr != nil {
		return nil, nil, errors.Join(fmt.Errorf("read image archive %s: as Docker's: %w; as an OCI layout: %w", file, err, ociErr), free())
	}
	return img, free, nil
}

func readLayout(file, dir string) (v1.Image, error) {
	if err := unpack(file, dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("the archive holds %d images, want one", len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// unpack extracts regular files; names that lead out of dir are refused.
func unpack(file, dir string) error {
	const limit = 4 << 30
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	archive := tar.NewReader(io.LimitReader(in, limit))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("the archive names a file outside itself: %q", header.Name)
		}
		if err := extract(archive, filepath.Join(dir, header.Name)); err != nil {
			return err
		}
	}
}

func extract(r io.Reader, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
}
