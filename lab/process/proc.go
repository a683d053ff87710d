package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stat is what the kernel says about a process.
type stat struct {
	state byte
	start uint64
}

func (t *Table) stat(pid int) (stat, error) {
	data, err := os.ReadFile(filepath.Join(t.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

func (t *Table) boot() (string, error) {
	data, err := os.ReadFile(filepath.Join(t.proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read the boot's identifier: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// parseStat reads /proc/PID/stat. The command's name may itself hold spaces and
// parentheses, so fields count from the last closing one.
func parseStat(line string) (stat, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, errors.New("process status has no command name")
	}
	fields := strings.Fields(line[end+1:])
	const stateField, startField = 0, 19 // fields 3 and 22 of proc(5)
	if len(fields) <= startField || len(fields[stateField]) != 1 {
		return stat{}, fmt.Errorf("process status has %d fields after the name", len(fields))
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read the process's start time: %w", err)
	}
	return stat{state: fields[stateField][0], start: start}, nil
}
