// Package process starts programs that outlive their starter and finds them
// again later.
//
// It owns the record of a started program: its pid together with the moment it
// started and the boot it belongs to, so that a pid which the kernel has given
// to somebody else is never signalled. It does not know what the programs are.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Record identifies one started program for as long as the machine is up.
type Record struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Start is the kernel's start time of the process in clock ticks since boot.
	Start uint64 `json:"start"`
	// Boot is the kernel's identifier of the boot.
	Boot string   `json:"boot"`
	Args []string `json:"args"`
}

// Table keeps one record file per program in a directory.
type Table struct {
	dir  string
	proc string
}

// NewTable returns the table kept in dir. The directory is made on first use.
func NewTable(dir string) *Table { return &Table{dir: dir, proc: "/proc"} }

// Command says how to start a program.
type Command struct {
	Name string
	Args []string // Args[0] is the absolute path of the program
	Env  []string // nil means the starter's environment
	Dir  string
	Log  string // file that receives standard output and error; truncated
	// Placed runs after the program has started and before Start returns;
	// nil means nothing to do. An error ends the program.
	Placed func(pid int) error
}

// Start runs a program in a session of its own and records it. The returned
// channel is closed when the program ends while the starter still runs.
func (t *Table) Start(c Command) (Record, <-chan struct{}, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return Record{}, nil, fmt.Errorf("open the log of %s: %w", c.Name, err)
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...) //nolint:noctx // it outlives whoever starts it
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if closeErr := log.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return Record{}, nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	record, err := t.adopt(c, cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill() // it is ours and has not been waited for
		_ = cmd.Wait()         // how it ended is no news
		return Record{}, nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // reaps; callers look at the log for the reason
	}()
	return record, ended, nil
}

func (t *Table) adopt(c Command, pid int) (Record, error) {
	if c.Placed != nil {
		if err := c.Placed(pid); err != nil {
			return Record{}, fmt.Errorf("place %s: %w", c.Name, err)
		}
	}
	stat, err := t.stat(pid)
	if err != nil {
		return Record{}, fmt.Errorf("look at %s right after its start: %w", c.Name, err)
	}
	boot, err := t.boot()
	if err != nil {
		return Record{}, err
	}
	r := Record{Name: c.Name, PID: pid, Start: stat.start, Boot: boot, Args: c.Args}
	return r, t.save(r)
}

func (t *Table) save(r Record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", r.Name, err)
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of process records: %w", err)
	}
	if err := os.WriteFile(t.path(r.Name), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("record %s: %w", r.Name, err)
	}
	return nil
}

// Lookup returns the record of a program and whether it still runs. A program
// that was never started gives a zero record.
func (t *Table) Lookup(name string) (Record, bool, error) {
	data, err := os.ReadFile(t.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read the record of %s: %w", name, err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, false, fmt.Errorf("read the record of %s: %w", name, err)
	}
	return r, t.Alive(r), nil
}

// List returns every record in the table, by name.
func (t *Table) List() ([]Record, error) {
	paths, err := filepath.Glob(filepath.Join(t.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list process records: %w", err)
	}
	var records []Record
	for _, path := range paths {
		r, _, err := t.Lookup(strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// Alive says whether the very process that r describes still runs. A zombie
// does not.
func (t *Table) Alive(r Record) bool {
	if r.PID <= 0 {
		return false
	}
	boot, err := t.boot()
	if err != nil || boot != r.Boot {
		return false
	}
	stat, err := t.stat(r.PID)
	return err == nil && stat.start == r.Start && stat.state != 'Z' && stat.state != 'X'
}

// Stop asks every process to end, kills those that have not within grace, and
// forgets them all. It returns once none is left or ctx ends.
func (t *Table) Stop(ctx context.Context, records []Record, grace time.Duration) error {
	for _, r := range records {
		if err := t.signal(r, syscall.SIGTERM); err != nil {
			return err
		}
	}
	soft, cancel := context.WithTimeout(ctx, grace)
	t.wait(soft, records)
	cancel()
	for _, r := range records {
		if err := t.signal(r, syscall.SIGKILL); err != nil {
			return err
		}
	}
	if left := t.wait(ctx, records); left != "" {
		return fmt.Errorf("wait for %s to end: %w", left, ctx.Err())
	}
	for _, r := range records {
		if err := os.Remove(t.path(r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget %s: %w", r.Name, err)
		}
	}
	return nil
}

func (t *Table) signal(r Record, s syscall.Signal) error {
	if !t.Alive(r) {
		return nil
	}
	if err := syscall.Kill(r.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s (pid %d): %w", r.Name, r.PID, err)
	}
	return nil
}

// wait polls until no record is alive; it names one that is when ctx ends.
func (t *Table) wait(ctx context.Context, records []Record) string {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, r := range records {
		for t.Alive(r) {
			select {
			case <-ctx.Done():
				return r.Name
			case <-tick.C:
			}
		}
	}
	return ""
}

func (t *Table) path(name string) string { return filepath.Join(t.dir, name+".json") }
