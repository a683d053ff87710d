// Package image makes container images out of files, without Docker, and reads
// and writes them as archives.
//
// It owns the image spec and the archive's form. It does not know where images
// are kept or run, nor what is in them.
package image

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Build assembles the image. The same spec and files give the same digest.
func Build(s Spec) (v1.Image, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("image %s: %w", s.Name, err)
	}
	var layerTar bytes.Buffer
	if err := s.writeLayer(&layerTar); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make the layer of image %s: %w", s.Name, err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(base, s.config())
	if err != nil {
		return nil, fmt.Errorf("configure image %s: %w", s.Name, err)
	}
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "lab image"}, MediaType: types.OCILayer})
	if err != nil {
		return nil, fmt.Errorf("add the layer to image %s: %w", s.Name, err)
	}
	return img, nil
}

func (s Spec) config() *v1.ConfigFile {
	var env []string
	for _, key := range slices.Sorted(maps.Keys(s.Env)) {
		env = append(env, key+"="+s.Env[key])
	}
	if _, ok := s.Env["PATH"]; !ok {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config: v1.Config{
			Entrypoint: s.Entrypoint,
			User:       s.User,
			WorkingDir: s.WorkingDir,
			Env:        env,
			Labels:     s.Labels,
		},
		RootFS: v1.RootFS{Type: "layers"},
	}
}
