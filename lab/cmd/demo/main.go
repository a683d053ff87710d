// Command demo narrates the walkthrough on a running cluster: it types what a
// user would type, shows what comes back, and follows the replicas up and down.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kelpie.dev/kelpie/lab/walkthrough"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	mode := flags.String("mode", "inline", "how HPAs name metrics: inline (mode A) or crd (mode B)")
	root := flags.String("root", ".", "the repository's root")
	bin := flags.String("bin", "", "folder of kubectl, helm and hey; empty means PATH")
	kubeconfig := flags.String("kubeconfig", os.Getenv("KUBECONFIG"), "the cluster")
	registry := flags.String("registry", "", "where the cluster's pods pull kelpie and test-metric-app from")
	tag := flags.String("tag", "latest", "tag of the kelpie image")
	result := flags.String("result", "", "file for the last line; empty prints it")
	keep := flags.Bool("keep", false, "leave everything up at the end, and wait for a key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *registry == "" {
		return errors.New("no -registry: say where the cluster's pods can pull images from")
	}
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	// Commands run in another folder than this one.
	if *kubeconfig, err = filepath.Abs(*kubeconfig); err != nil {
		return err
	}
	bins := []string{filepath.Join(abs, "bin")}
	if *bin != "" {
		bins = append(bins, *bin)
	}
	r, err := walkthrough.New(walkthrough.Options{Mode: walkthrough.Mode(*mode), Root: abs, Bin: bins,
		Kubeconfig: *kubeconfig, Registry: *registry, Tag: *tag, Out: os.Stdout})
	if err != nil {
		return err
	}
	fmt.Println("Removing what an earlier demo may have left …")
	if err := r.Clean(ctx); err != nil {
		return err
	}
	failed := steps(ctx, r, walkthrough.Mode(*mode))
	if failed == nil && *keep {
		whatNext(ctx, r, *mode, fmt.Sprintf("export KUBECONFIG=%s PATH=%s:$PATH", *kubeconfig, strings.Join(bins, ":")))
	}
	// Clean up on a context of its own: an interrupt ends the demo, not the cleaning.
	fmt.Println("\nTaking the demo down …")
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Minute)
	defer cancel()
	if err := errors.Join(failed, r.Clean(cleanCtx)); err != nil {
		return err
	}
	last := fmt.Sprintf("demo: 1 → 5 replicas in %.0f s, 5 → 1 in %.0f s\n", r.Up.Seconds(), r.Down.Seconds())
	if *result == "" {
		_, err = fmt.Print(last)
		return err
	}
	return os.WriteFile(*result, []byte(last), 0o644)
}

func steps(ctx context.Context, r *walkthrough.Run, mode walkthrough.Mode) error {
	for _, step := range walkthrough.Steps(mode) {
		if step.Proof {
			continue
		}
		r.Narrate(step)
		if err := step.Do(ctx, r); err != nil {
			return fmt.Errorf("step %s, %s: %w", step.Row, step.Title, err)
		}
	}
	if r.Peak != 5 || r.Up == 0 || r.Down == 0 {
		return fmt.Errorf("the replicas were seen at %d at most: want 1 → 5 → 1", r.Peak)
	}
	return nil
}

// whatNext leaves the cluster to the user until a key or an interrupt.
func whatNext(ctx context.Context, r *walkthrough.Run, mode, settings string) {
	other := "crd"
	if mode == "crd" {
		other = "inline"
	}
	fmt.Printf(`
It stays up until you press Enter here. In another terminal:

  %s
  hey -z 30s -c 10 http://localhost:8080/                 # load again, and watch: kubectl get hpa -n test -w
  kelpie status                                           # the whole installation on one screen
  kelpie doctor hpa/test-metric-hpa -n test               # walk the chain; break something and ask again
  kelpie query 'sum:flask.request.rate{*} by {kube_deployment}'
  make demo MODE=%s                                      # afterwards: the other way HPAs name metrics

`, settings, other)
	fmt.Printf("So far: 1 → 5 replicas in %.0f s, 5 → 1 in %.0f s.\n", r.Up.Seconds(), r.Down.Seconds())
	key := make(chan struct{})
	go func() {
		// Owned by the process: a blocked read of the terminal ends with it.
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(key)
	}()
	select {
	case <-key:
	case <-ctx.Done():
	}
}
