package registry

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPushedImageCanBePulled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, t.TempDir(), io.Discard) }()

	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := Reference(host, "kelpie:dev")
	if err != nil || reference != host+"/kelpie:dev" {
		t.Fatalf("reference %q, %v", reference, err)
	}
	digest, err := Push(t.Context(), reference, img)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	found, err := remote.Get(tag)
	if err != nil || found.Digest.String() != digest {
		t.Fatalf("pulled %v, %v, want digest %s", found, err, digest)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("serve ends with %v", err)
	}
	if _, err := Push(t.Context(), reference, img); err == nil || !strings.Contains(err.Error(), reference) {
		t.Errorf("push to a registry that is gone: %v", err)
	}
}

func TestReferenceRefusesBadNames(t *testing.T) {
	for _, short := range []string{"", "Kelpie:dev", "kelpie:", "a b"} {
		if got, err := Reference("10.244.0.1:5000", short); err == nil {
			t.Errorf("%q gives %q", short, got)
		}
	}
}
