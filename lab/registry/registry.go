// Package registry keeps the lab's images where the node pulls them from.
//
// It owns a small image registry that speaks plain HTTP on an address only this
// machine has, and the way images get there. Blobs are on disk, manifests in
// memory: the registry lives as long as the lab. It does not know how images
// are made.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Serve answers on listener until ctx ends, keeping blobs in dir. It writes a
// line for each request to logs.
func Serve(ctx context.Context, listener net.Listener, dir string, logs io.Writer) error {
	server := &http.Server{
		Handler:           registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)), registry.Logger(log.New(logs, "", log.LstdFlags))),
		ReadHeaderTimeout: 10 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve images on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	// Pulls under way are not worth waiting for: the node is going too.
	err := server.Close()
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Reference returns the name by which a pod asks the registry at host for an
// image called short, such as kelpie:dev.
func Reference(host, short string) (string, error) {
	tag, err := name.NewTag(host+"/"+short, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("image name %q (want NAME:TAG, such as kelpie:dev): %w", short, err)
	}
	return tag.Name(), nil
}

// PushWithLogin stores an image under a reference in a registry that is not the
// lab's, over TLS unless it is on this machine, with the credentials that docker
// login left, and returns the digest.
func PushWithLogin(ctx context.Context, reference string, img v1.Image) (string, error) {
	tag, err := name.NewTag(reference)
	if err != nil {
		return "", fmt.Errorf("image reference %q: %w", reference, err)
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("push image %s: %w", reference, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("digest of image %s: %w", reference, err)
	}
	return digest.String(), nil
}

// Push stores an image under a reference in the lab's registry and returns its
// digest.
func Push(ctx context.Context, reference string, img v1.Image) (string, error) {
	tag, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("image reference %q: %w", reference, err)
	}
	// The registry is on this machine: a proxy must not come between.
	direct := &http.Transport{Proxy: nil}
	defer direct.CloseIdleConnections()
	if err := remote.Write(tag, img, remote.WithContext(ctx), remote.WithTransport(direct)); err != nil {
		return "", fmt.Errorf("store image %s in the lab's registry: %w", reference, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("digest of image %s: %w", reference, err)
	}
	return digest.String(), nil
}
