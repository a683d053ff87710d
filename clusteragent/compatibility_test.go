package clusteragent

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each answer to upstream's users, each point of the checklist and each fault names
// the tests that show it: those must exist.
func TestCompatibilityNamesTestsThatExist(t *testing.T) {
	b, err := os.ReadFile("../docs/compatibility.md")
	must(t, err)
	_, section, ok := strings.Cut(string(b), "### What upstream's users have asked for\n")
	if !ok {
		t.Fatal("docs/compatibility.md has no section of what upstream's users have asked for")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	tests := map[string]bool{}
	// The lab's are of another module.
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{".", "../examples", "../cli", "../charts", "../lab"} {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			src, err := os.ReadFile(path)
			for _, m := range declared.FindAllStringSubmatch(string(src), -1) {
				tests[m[1]] = true
			}
			return err
		}))
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(section, -1)
	if len(named) < 30 {
		t.Errorf("the section names %d tests: is it read rightly?", len(named))
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("docs/compatibility.md names %s, and there is no such test", m[1])
		}
	}
	lines := slices.Collect(strings.Lines(section))
	rows := map[string]int{} // by the heading of the table
	heading := ""
	for i, line := range lines {
		switch {
		case !strings.HasPrefix(line, "| "):
		case strings.HasPrefix(lines[i+1], "|---"):
			heading = strings.TrimSpace(line)
		default:
			if rows[heading]++; !strings.Contains(line, "`Test") {
				t.Errorf("a row without a test: %s", line)
			}
		}
	}
	if n := rows["| | point | shown by | not shown |"]; n != 16 || len(rows) != 3 {
		t.Errorf("%d tables, %d rows of the conformance checklist; want 3 and 16", len(rows), n)
	}
}
