package forward

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// adopt gives the spool of a key that is no longer configured to the key that
// replaced it, when there can be no doubt which that is: the intake has one key
// now and left one directory. What else is not an endpoint's is named, and left
// for a person to decide about: it may be another organization's.
func (f *Forwarder) adopt() {
	dirs, err := os.ReadDir(f.o.SpoolDir)
	if err != nil {
		return // there is none yet, or the senders will say what is wrong
	}
	configured := map[string]bool{}
	keys := map[string]int{} // how many of each intake
	for _, e := range f.o.Endpoints {
		intake, whole := e.directory()
		configured[whole] = true
		keys[intake]++
	}
	left := map[string][]string{} // by intake
	for _, d := range dirs {
		if i := strings.LastIndexByte(d.Name(), '-'); d.IsDir() && i > 0 && !configured[d.Name()] {
			left[d.Name()[:i+1]] = append(left[d.Name()[:i+1]], d.Name())
		}
	}
	for _, e := range f.o.Endpoints {
		intake, whole := e.directory()
		if keys[intake] == 1 && len(left[intake]) == 1 && f.rename(left[intake][0], whole) {
			delete(left, intake)
		}
	}
	for _, names := range left {
		for _, name := range names {
			if f.o.Log != nil && holdsPayloads(filepath.Join(f.o.SpoolDir, name)) {
				f.o.Log.Warn("the spool of an endpoint that is not configured holds payloads that nobody will send", "directory", filepath.Join(f.o.SpoolDir, name),
					"mend", "configure its intake and key again, or remove the directory")
			}
		}
	}
}

// rename moves a directory to a name that is not taken, unless a process holds
// it.
func (f *Forwarder) rename(from, to string) bool {
	from, to = filepath.Join(f.o.SpoolDir, from), filepath.Join(f.o.SpoolDir, to)
	if _, err := os.Lstat(to); err == nil {
		return false
	}
	lock, err := lockFile(filepath.Join(from, lockName))
	if err != nil {
		return false
	}
	defer func() { _ = lock.Close() }()
	return os.Rename(from, to) == nil
}

func holdsPayloads(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(d os.DirEntry) bool {
		_, ours := parseFile(d.Name())
		return ours
	})
}
