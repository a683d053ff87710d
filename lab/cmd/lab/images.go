package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/lab/image"
	"kelpie.dev/kelpie/lab/registry"
)

func newLoadImage(p *places) *cobra.Command {
	var elsewhere string
	cmd := &cobra.Command{
		Use:   "load-image NAME:TAG=ARCHIVE...",
		Short: "Put images into the lab's registry",
		Long: `Put images into the lab's registry, from archives in the OCI layout or as
"docker save" writes them, and print the reference that pods use. The registry
lives as long as the lab. With --registry they go to another one, such as
registry.example.com/me, with the credentials that docker login left.`,
		Example: "  lab load-image kelpie:dev=build/kelpie.tar test-metric-app:latest=build/app.tar",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			load := func(ctx context.Context, name, archive string) (reference, digest string, err error) {
				return push(ctx, elsewhere+"/"+name, archive)
			}
			if elsewhere == "" {
				n, err := p.node(nil)
				if err != nil {
					return err
				}
				load = n.LoadImage
			}
			for _, arg := range args {
				name, archive, ok := strings.Cut(arg, "=")
				if !ok {
					return fmt.Errorf("%q: want NAME:TAG=ARCHIVE, such as kelpie:dev=build/kelpie.tar", arg)
				}
				reference, digest, err := load(cmd.Context(), name, archive)
				if err != nil {
					return err
				}
				say(cmd.OutOrStdout(), "%s  %s", reference, digest)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&elsewhere, "registry", "", "another registry, with the path before the image's name")
	return cmd
}

// push stores an archive's image under a reference in any registry.
func push(ctx context.Context, reference, archive string) (name, digest string, err error) {
	img, free, err := image.Read(archive)
	if err != nil {
		return "", "", err
	}
	digest, err = registry.PushWithLogin(ctx, reference, img)
	return reference, digest, errors.Join(err, free())
}

func newImage() *cobra.Command {
	var specFile, archive, name string
	cmd := &cobra.Command{
		Use:   "image --spec FILE -o ARCHIVE",
		Short: "Make an image archive out of files, without Docker",
		Long: `Make an image archive out of files, without Docker and without root. The same
spec and files give the same digest. The spec is YAML; paths in "from" of files
are relative to it, modes are strings of octal digits:

  name: kelpie:dev
  entrypoint: [/kelpie-agent]
  user: "65532:65532"
  env: {KEY: value}
  labels: {org.opencontainers.image.title: kelpie}
  files:
  - {from: build/kelpie-agent, to: /kelpie-agent, mode: "0755"}
  symlinks:
  - {from: /usr/local/bin/agent, to: /kelpie-agent}   # from points to to
  directories:
  - {path: /tmp, mode: "1777"}
  - {path: /home/nonroot, mode: "0700", owner: "65532:65532"}
  caCertificates: true`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec, err := image.ReadSpec(specFile)
			if err != nil {
				return err
			}
			if name != "" {
				spec.Name = name
			}
			img, err := image.Build(spec)
			if err != nil {
				return err
			}
			if err := image.Write(archive, spec.Name, img); err != nil {
				return err
			}
			digest, err := img.Digest()
			if err != nil {
				return fmt.Errorf("digest of %s: %w", spec.Name, err)
			}
			say(cmd.OutOrStdout(), "%s  %s  %s", archive, spec.Name, digest)
			return nil
		},
	}
	cmd.Flags().StringVar(&specFile, "spec", "", "the image's description (required)")
	cmd.Flags().StringVarP(&archive, "output", "o", "", "the archive to write (required)")
	cmd.Flags().StringVar(&name, "name", "", "name and tag instead of the spec's")
	for _, flag := range []string{"spec", "output"} {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is declared above
		}
	}
	return cmd
}

func newRegistry() *cobra.Command {
	var listen, dir string
	cmd := &cobra.Command{
		Use:    "registry",
		Short:  "Serve images over plain HTTP; lab up starts this",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errors.New("registry: --dir is required")
			}
			listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("serve images: %w", err)
			}
			return registry.Serve(cmd.Context(), listener, dir, os.Stderr)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on")
	cmd.Flags().StringVar(&dir, "dir", "", "directory of blobs")
	return cmd
}
