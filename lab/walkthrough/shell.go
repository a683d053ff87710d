package walkthrough

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// shell types commands. Each runs in bash, in its own process group, so that
// ending a command ends what it started.
type shell struct {
	dir        string
	env        []string
	out        io.Writer
	background []*background
}

type background struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	done   chan struct{}
}

// command returns line as a command that is killed, group and all, when ctx ends.
func (s *shell) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-ec", line)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run types line, shows it and its output, and returns the output. A failure is
// an error that carries the output's end.
func (s *shell) run(ctx context.Context, line string) (string, error) {
	s.show(line)
	out, err := s.command(ctx, line).CombinedOutput()
	text := string(out)
	for l := range strings.Lines(text) {
		_, _ = fmt.Fprint(s.out, "  ", l)
	}
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", firstLine(line), err, tail(text, 2000))
	}
	return text, nil
}

// ask runs line without showing it: looks that a person would make in another window.
func (s *shell) ask(ctx context.Context, line string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := s.command(ctx, line)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", firstLine(line), err, tail(stdout.String(), 2000), tail(stderr.String(), 2000))
	}
	return stdout.String(), nil
}

// askJSON decodes what line prints.
func (s *shell) askJSON(ctx context.Context, line string, into any) error {
	out, err := s.ask(ctx, line)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s: decode its output: %w\n%s", firstLine(line), err, tail(out, 500))
	}
	return nil
}

// start types line and leaves it running until stopBackground or ctx's end.
func (s *shell) start(ctx context.Context, line string) (*background, error) {
	s.show(line + " &")
	b := &background{cmd: s.command(ctx, line), output: new(bytes.Buffer), done: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = b.output, b.output
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", firstLine(line), err)
	}
	go func() {
		defer close(b.done)
		_ = b.cmd.Wait() // killed on purpose, or its output says why
	}()
	s.background = append(s.background, b)
	return b, nil
}

func (s *shell) stopBackground() {
	for _, b := range s.background {
		s.stop(b)
	}
	s.background = nil
}

// stop ends b, and what it started, unless it has ended already.
func (s *shell) stop(b *background) {
	select {
	case <-b.done: // its process id may be somebody else's by now
	default:
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		<-b.done
	}
}

func (s *shell) show(line string) {
	for i, l := range strings.Split(strings.TrimSpace(line), "\n") {
		prompt := "$ "
		if i > 0 {
			prompt = "> "
		}
		_, _ = fmt.Fprintln(s.out, prompt+l)
	}
}

// errFatal is an error that waiting will not mend.
type errFatal struct{ error }

// until repeats try, once a second, until it returns nil or an errFatal. After
// limit its last error is returned, with what was waited for.
func until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if fatal := (errFatal{}); errors.As(err, &fatal) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ctx.Err() == nil || last == nil {
			last = err // an attempt cut short by the limit says less than the one before
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, last)
		case <-tick.C:
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func joinPath(dirs []string) string { return strings.Join(dirs, ":") }

// hexKey returns n random bytes in hex: Datadog's keys look so.
func hexKey(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: see crypto/rand
	return hex.EncodeToString(b)
}

// contains reports each of want that text lacks.
func contains(text string, want ...string) error {
	var errs []error
	for _, w := range want {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(w)) {
			errs = append(errs, fmt.Errorf("%q is not in:\n%s", w, tail(text, 3000)))
		}
	}
	return errors.Join(errs...)
}
