package node

import (
	"context"
	"fmt"

	"kelpie.dev/kelpie/lab/image"
	"kelpie.dev/kelpie/lab/registry"
)

// pauseImage is what every pod's sandbox runs.
func pauseImage() string { return RegistryHost + "/pause:lab" }

func (n *Node) pushPause(ctx context.Context) error {
	img, err := image.Build(image.Spec{
		Name:       "pause:lab",
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
		Files:      []image.File{{From: n.layout.nodeBin("pause"), To: "/pause", Mode: 0o755}},
	})
	if err != nil {
		return err
	}
	_, err = registry.Push(ctx, pauseImage(), img)
	return err
}

// LoadImage puts an image archive into the lab's registry under a short name
// such as kelpie:dev, and returns the reference that pods use and the digest.
func (n *Node) LoadImage(ctx context.Context, short, archive string) (reference, digest string, err error) {
	reference, err = registry.Reference(RegistryHost, short)
	if err != nil {
		return "", "", err
	}
	if err := answers(RegistryHost)(ctx); err != nil {
		return "", "", fmt.Errorf("the lab's registry does not answer (is the lab up? see lab status): %w", err)
	}
	img, free, err := image.Read(archive)
	if err != nil {
		return "", "", err
	}
	digest, err = registry.Push(ctx, reference, img)
	if freeErr := free(); err == nil {
		err = freeErr
	}
	return reference, digest, err
}
