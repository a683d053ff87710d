package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Sample is one line of a Prometheus text exposition.
type Sample struct {
	Name   string
	Labels string // as they stand between the braces
	Value  float64
}

// Scrape calls visit for each sample at url. It reads the text as it comes, so
// that a hundred thousand series cost this side little.
func Scrape(ctx context.Context, url string, visit func(Sample)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("scrape %s: %s", url, resp.Status)
	}
	return ReadSamples(resp.Body, visit)
}

// ReadSamples calls visit for each sample of a text exposition.
func ReadSamples(r io.Reader, visit func(Sample)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		text := lines.Text()
		if text == "" || text[0] == '#' {
			continue
		}
		cut := strings.LastIndexByte(text, ' ')
		if cut < 0 {
			return fmt.Errorf("scrape: unexpected line %q", text)
		}
		value, err := strconv.ParseFloat(text[cut+1:], 64)
		if err != nil {
			return fmt.Errorf("scrape: line %q: %w", text, err)
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(text[:cut], "}"), "{")
		visit(Sample{name, labels, value})
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	return nil
}
