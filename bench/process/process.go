// Package process runs programs, each on one core, and reads from /proc what
// they cost. Linux only.
//
// It does not know what the programs do.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options says what to run.
type Options struct {
	Args []string // program and arguments
	Env  []string // all of it: nothing is inherited
	Dir  string   // "" means the current one
	CPU  int      // the only core it may use
	Log  string   // file for its standard error, and standard output unless Stdout is set
	// Stdout, when set, receives the standard output.
	Stdout *bytes.Buffer
}

// A Process is a started program.
type Process struct {
	o    Options
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended
	err  error         // how it ended; valid after done
}

// Start starts a program. It is killed when ctx ends.
func Start(ctx context.Context, o Options) (*Process, error) {
	log, err := os.Create(o.Log)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", o.Args[0], err)
	}
	cmd := exec.CommandContext(ctx, o.Args[0], o.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = o.Env, o.Dir, log, log
	if o.Stdout != nil {
		cmd.Stdout = o.Stdout
	}
	if err := onCPU(o.CPU, cmd.Start); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("run %s: %w", o.Args[0], err)
	}
	p := &Process{o: o, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

// onCPU calls start on a thread that may use only one core; a child inherits
// that from the thread that makes it.
func onCPU(cpu int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read the cores of this thread: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("pin to core %d: %w", cpu, err)
	}
	return errors.Join(start(), unix.SchedSetaffinity(0, &before))
}

// PinSelf moves this whole process to one core.
func PinSelf(cpu int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("pin this process to core %d: %w", cpu, err)
	}
	var only unix.CPUSet
	only.Set(cpu)
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &only); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin this process to core %d: %w", cpu, err)
		}
	}
	return nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end; the error holds the last lines of the log.
func (p *Process) Wait() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w\n%s", p.o.Args[0], p.err, p.Tail())
	}
	return nil
}

// Tail returns the last lines of the log.
func (p *Process) Tail() string {
	data, err := os.ReadFile(p.o.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// Stop asks the process to end, and kills it when it does not within patience.
func (p *Process) Stop(patience time.Duration) error {
	select {
	case <-p.done:
		return fmt.Errorf("%s had ended before it was stopped (%w):\n%s", p.o.Args[0], p.err, p.Tail())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return nil
}

// CPU returns the processor time used so far, to the kernel's tick of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return parseStat(string(data))
}

// tick is the kernel's USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// parseStat reads utime and stime, fields 14 and 15 of /proc/PID/stat. The
// command's name, field 2, is in parentheses and may hold anything.
func parseStat(text string) (time.Duration, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("read processor time: unexpected /proc/PID/stat %q", text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}

// Memory is a process' resident memory in bytes.
type Memory struct {
	Now  int64 // VmRSS
	Peak int64 // VmHWM
}

// Memory returns the resident memory.
func (p *Process) Memory() (Memory, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read memory: %w", err)
	}
	return parseStatus(string(data))
}

func parseStatus(text string) (m Memory, err error) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		into := &m.Now
		switch name {
		case "VmRSS":
		case "VmHWM":
			into = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("read memory: %s: %w", name, err)
		}
		*into = kib << 10
	}
	if m.Now == 0 || m.Peak == 0 {
		return m, errors.New("read memory: no VmRSS and VmHWM in /proc/PID/status")
	}
	return m, nil
}
