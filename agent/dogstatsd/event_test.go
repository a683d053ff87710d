package dogstatsd

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kelpie.dev/kelpie/metric"
)

// said is Claims in words, for tables.
type said struct {
	Pod, Container, External, Cardinality string
	HasHost                               bool
}

func (c Claims) words() said {
	return said{string(c.PodUID), string(c.ContainerID), string(c.External), string(c.Cardinality), c.HasHost}
}

func TestEvent(t *testing.T) {
	for _, tt := range []struct {
		about, line string
		want        metric.Event // "normal" and "info" are filled in
		said        said
		ignored     bool
	}{
		{"smallest", "_e{5,4}:title|text", metric.Event{Title: "title", Text: "text"}, said{}, false},
		{"empty text", "_e{5,0}:title|", metric.Event{Title: "title"}, said{}, false},
		{"lengths are bytes", "_e{2,6}:é|日本", metric.Event{Title: "é", Text: "日本"}, said{}, false},
		{"any byte by length", "_e{7,9}:a|b:{}:|c|d:1|#x,|#real", metric.Event{Title: "a|b:{}:", Text: "c|d:1|#x,", Tags: metric.Tags{"real"}}, said{}, false},
		{"line feeds in both", `_e{4,6}:a\nb|c\nd\e`, metric.Event{Title: "a\nb", Text: "c\nd\\e"}, said{}, false},
		{"leading zeros", "_e{005,04}:title|text", metric.Event{Title: "title", Text: "text"}, said{}, false},
		{"all fields", "_e{1,1}:a|b|d:1700000000|h:web-1|k:deploys|p:low|s:jenkins|t:success|#env:prod,b,a,b", metric.Event{
			Title: "a", Text: "b", Time: 1700000000, Host: "web-1", AggregationKey: "deploys", Priority: "low", SourceType: "jenkins",
			AlertType: "success", Tags: metric.Tags{"a", "b", "env:prod"}}, said{HasHost: true}, false},
		{"any order, last wins", "_e{1,1}:a|b|#x|t:error|#y|t:warning|k:1|k:2", metric.Event{
			Title: "a", Text: "b", AlertType: "warning", AggregationKey: "2", Tags: metric.Tags{"y"}}, said{}, false},
		{"unknown fields", "_e{1,1}:a|b|zz:1||x|q", metric.Event{Title: "a", Text: "b"}, said{}, false},
		{"bad time", "_e{1,1}:a|b|d:soon|k:x", metric.Event{Title: "a", Text: "b", AggregationKey: "x"}, said{}, true},
		{"negative time", "_e{1,1}:a|b|d:-1", metric.Event{Title: "a", Text: "b"}, said{}, true},
		{"time too large", "_e{1,1}:a|b|d:99999999999999999999", metric.Event{Title: "a", Text: "b"}, said{}, true},
		{"time 0 is when it is sent", "_e{1,1}:a|b|d:0", metric.Event{Title: "a", Text: "b"}, said{}, false},
		{"bad priority", "_e{1,1}:a|b|p:high", metric.Event{Title: "a", Text: "b"}, said{}, true},
		{"bad alert type", "_e{1,1}:a|b|t:Error", metric.Event{Title: "a", Text: "b"}, said{}, true},
		{"bad after good", "_e{1,1}:a|b|p:low|p:x", metric.Event{Title: "a", Text: "b", Priority: "low"}, said{}, true},
		{"text longer than said", "_e{1,1}:a|bc|k:x", metric.Event{Title: "a", Text: "b", AggregationKey: "x"}, said{}, true},
		{"UTF-16 units, as JavaScript counts", "_e{1,2}:é|😀|k:x", metric.Event{Title: "é", Text: "😀", AggregationKey: "x"}, said{}, false},
		{"UTF-16 units of the text only", "_e{1,3}:a|日本語", metric.Event{Title: "a", Text: "日本語"}, said{}, false},
		{"bytes come first", "_e{2,1}:é|b|日", metric.Event{Title: "é", Text: "b"}, said{}, false},
		{"origin", "_e{1,1}:a|b|c:ci-1|e:it-false,cn-x,pu-u|card:high|#dd.internal.entity_id:u,x", metric.Event{Title: "a", Text: "b", Tags: metric.Tags{"x"}},
			said{Pod: "u", Container: "ci-1", External: "it-false,cn-x,pu-u", Cardinality: "high"}, false},
		{"entity none, card tag", "_e{1,1}:a|b|#dd.internal.entity_id:none,dd.internal.card:low,dd.internal.jmx_check_name:x", metric.Event{Title: "a", Text: "b"}, said{Cardinality: "low"}, false},
		{"card field before tag", "_e{1,1}:a|b|#dd.internal.card:low|card:high", metric.Event{Title: "a", Text: "b"}, said{Cardinality: "high"}, false},
		{"host tag", "_e{1,1}:a|b|#host:h,hostname:x", metric.Event{Title: "a", Text: "b", Host: "h", Tags: metric.Tags{"hostname:x"}}, said{HasHost: true}, false},
		{"empty host tag", "_e{1,1}:a|b|#host:", metric.Event{Title: "a", Text: "b"}, said{HasHost: true}, false},
		{"host field before tag", "_e{1,1}:a|b|h:field|#host:tag", metric.Event{Title: "a", Text: "b", Host: "field"}, said{HasHost: true}, false},
		{"empty host field", "_e{1,1}:a|b|h:|#host:tag", metric.Event{Title: "a", Text: "b", Host: "tag"}, said{HasHost: true}, false},
	} {
		if tt.want.Priority == "" {
			tt.want.Priority = "normal"
		}
		if tt.want.AlertType == "" {
			tt.want.AlertType = "info"
		}
		p := Parser{ClientOrigin: true}
		got, err := p.Event([]byte(tt.line))
		if err != nil {
			t.Errorf("%s: %q: %v", tt.about, tt.line, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got.Event, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", tt.about, tt.line, diff)
		}
		if diff := cmp.Diff(tt.said, got.words()); diff != "" {
			t.Errorf("%s: %q claims (-want +got):\n%s", tt.about, tt.line, diff)
		}
		if got.Ignored != tt.ignored {
			t.Errorf("%s: %q: Ignored %t", tt.about, tt.line, got.Ignored)
		}
	}
}

func TestEventErrors(t *testing.T) {
	for line, want := range map[string]EventError{
		"_e{":                               ErrEventHeader,
		"_e{5,4":                            ErrEventHeader,
		"_e{5,4}title|text":                 ErrEventHeader,
		"_e{5}:title|text":                  ErrEventHeader,
		"_e{,4}:title|text":                 ErrEventHeader,
		"_e{5,}:title|text":                 ErrEventHeader,
		"_e{-5,4}:title|text":               ErrEventHeader,
		"_e{+5,4}:title|text":               ErrEventHeader,
		"_e{5,4,3}:title|text":              ErrEventHeader,
		"_e{ 5,4}:title|text":               ErrEventHeader,
		"_e{0,4}:|text":                     ErrEventNoTitle,
		"_e{6,4}:title|text":                ErrEventLengths,
		"_e{4,4}:title|text":                ErrEventLengths,
		"_e{5,5}:title|text":                ErrEventLengths,
		"_e{5,0}:title":                     ErrEventLengths,
		"_e{1,5}:é|text":                    ErrEventLengths,
		"_e{1,1}:😀|x":                       ErrEventLengths, // half of a pair
		"_e{99999999999999999999,1}:a|b":    ErrEventLengths,
		"_e{1,18446744073709551615}:a|b":    ErrEventLengths,
		"_e{9223372036854775807,1}:title|b": ErrEventLengths,
	} {
		var p Parser
		_, err := p.Event([]byte(line))
		if !errors.Is(err, want) {
			t.Errorf("%q: error %v, want %s", line, err, string(want))
		}
	}
	for _, e := range EventErrors {
		if e.Error() == string(e) {
			t.Errorf("%s has no explanation", string(e))
		}
	}
}

func TestServiceCheck(t *testing.T) {
	for _, tt := range []struct {
		about, line string
		want        metric.ServiceCheck
		said        said
		ignored     bool
	}{
		{"ok", "_sc|db|0", metric.ServiceCheck{Name: "db"}, said{}, false},
		{"warning", "_sc|db|1", metric.ServiceCheck{Name: "db", Status: metric.CheckWarning}, said{}, false},
		{"critical", "_sc|db|2", metric.ServiceCheck{Name: "db", Status: metric.CheckCritical}, said{}, false},
		{"unknown", "_sc|a:b c|3|", metric.ServiceCheck{Name: "a:b c", Status: metric.CheckUnknown}, said{}, false},
		{"all fields", "_sc|db|2|d:1700000000|h:web-1|#env:prod,b,a|m:no route", metric.ServiceCheck{
			Name: "db", Status: metric.CheckCritical, Time: 1700000000, Host: "web-1", Message: "no route", Tags: metric.Tags{"a", "b", "env:prod"}}, said{HasHost: true}, false},
		{"bar in the message", "_sc|db|0|m:a|b||c: d", metric.ServiceCheck{Name: "db", Message: "a|b||c: d"}, said{}, false},
		{"field-like words in the message", "_sc|db|0|m:a|d:5|h:x|m:y|t", metric.ServiceCheck{Name: "db", Message: "a|d:5|h:x|m:y|t"}, said{}, false},
		{"line feed in the message", `_sc|db|0|m:a\nb\c`, metric.ServiceCheck{Name: "db", Message: "a\nb\\c"}, said{}, false},
		{"empty message", "_sc|db|0|m:", metric.ServiceCheck{Name: "db"}, said{}, false},
		{"Go's order: origin after the message", "_sc|db|0|#x|m:a|b|c:ci-1|e:pu-u", metric.ServiceCheck{Name: "db", Message: "a|b", Tags: metric.Tags{"x"}}, said{Container: "ci-1", External: "pu-u"}, false},
		{"Ruby's order: tags after the message", "_sc|db|0|m:a b|#x,y", metric.ServiceCheck{Name: "db", Message: "a b", Tags: metric.Tags{"x", "y"}}, said{}, false},
		{"all that follows a message", "_sc|db|0|m:a|b|#x|c:ci-1|card:low", metric.ServiceCheck{Name: "db", Message: "a|b", Tags: metric.Tags{"x"}}, said{Container: "ci-1", Cardinality: "low"}, false},
		{"bad time", "_sc|db|0|d:x|h:h", metric.ServiceCheck{Name: "db", Host: "h"}, said{HasHost: true}, true},
		{"unknown fields", "_sc|db|0|zz:1||x", metric.ServiceCheck{Name: "db"}, said{}, false},
		{"magic tags", "_sc|db|0|#host:h,dd.internal.entity_id:u,dd.internal.card:high,x", metric.ServiceCheck{Name: "db", Host: "h", Tags: metric.Tags{"x"}},
			said{Pod: "u", Cardinality: "high", HasHost: true}, false},
	} {
		p := Parser{ClientOrigin: true}
		got, err := p.ServiceCheck([]byte(tt.line))
		if err != nil {
			t.Errorf("%s: %q: %v", tt.about, tt.line, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got.ServiceCheck, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", tt.about, tt.line, diff)
		}
		if diff := cmp.Diff(tt.said, got.words()); diff != "" {
			t.Errorf("%s: %q claims (-want +got):\n%s", tt.about, tt.line, diff)
		}
		if got.Ignored != tt.ignored {
			t.Errorf("%s: %q: Ignored %t", tt.about, tt.line, got.Ignored)
		}
	}
}

func TestServiceCheckErrors(t *testing.T) {
	for line, want := range map[string]CheckError{
		"_sc":         ErrCheckHeader,
		"_sc|":        ErrCheckHeader,
		"_sc|db":      ErrCheckHeader,
		"_scx|db|0":   ErrCheckHeader,
		"_sc||0":      ErrCheckNoName,
		"_sc|db|":     ErrCheckStatus,
		"_sc|db|4":    ErrCheckStatus,
		"_sc|db|-1":   ErrCheckStatus,
		"_sc|db|00":   ErrCheckStatus,
		"_sc|db|OK|x": ErrCheckStatus,
	} {
		var p Parser
		_, err := p.ServiceCheck([]byte(line))
		if !errors.Is(err, want) {
			t.Errorf("%q: error %v, want %s", line, err, string(want))
		}
	}
	for _, e := range CheckErrors {
		if e.Error() == string(e) {
			t.Errorf("%s has no explanation", string(e))
		}
	}
}

func TestClientOriginOffIgnoresClaims(t *testing.T) {
	var p Parser
	e, err := p.Event([]byte("_e{1,1}:a|b|c:ci-1|e:pu-u|card:high|#x"))
	if err != nil || e.words() != (said{}) || e.Ignored {
		t.Errorf("event: %+v, %v", e, err)
	}
	c, err := p.ServiceCheck([]byte("_sc|a|0|m:x|c:ci-1|e:pu-u|card:high"))
	if err != nil || c.words() != (said{}) || c.Ignored || c.Message != "x" {
		t.Errorf("service check: %+v, %v", c, err)
	}
}

func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		"_e{5,4}:title|text", `_e{4,6}:a\nb|c\nd\e|d:1|h:x|k:y|p:low|s:z|t:error|#a,host:b,dd.internal.entity_id:c`,
		"_e{2,6}:é|日本|c:ci-1|e:pu-1|card:low", "_e{99999999999999999999,1}:a|b", "_e{1,1}:a|bcd", "_e{0,0}:|", "_e{1,1}:a|b||||",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		original := bytes.Clone(line)
		p := Parser{ClientOrigin: true}
		e, err := p.Event(line)
		var reason EventError
		switch {
		case !bytes.Equal(original, line):
			t.Fatal("the line was modified")
		case err != nil:
			if !errors.As(err, &reason) {
				t.Fatalf("%q: error %v is no EventError", line, err)
			}
			return
		case e.Title == "" || e.Time < 0 || e.Priority != "normal" && e.Priority != "low" || e.Tags.Has(""):
			t.Fatalf("%q: accepted as %+v", line, e)
		case len(e.Title)+len(e.Text) > len(line):
			t.Fatalf("%q: title and text are longer than the line", line)
		}
		if strings.Contains(e.Title+e.Text, `\n`) {
			return // a backslash before a line feed: not to be told apart
		}
		// What is read can be written, and read again.
		title, text := escaped(e.Title), escaped(e.Text)
		again, err := p.Event(fmt.Appendf(nil, "_e{%d,%d}:%s|%s", len(title), len(text), title, text))
		if err != nil || again.Title != e.Title || again.Text != e.Text {
			t.Fatalf("%q: %q, %q came back as %q, %q, %v", line, e.Title, e.Text, again.Title, again.Text, err)
		}
	})
}

func escaped(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }

func FuzzServiceCheck(f *testing.F) {
	for _, s := range []string{
		"_sc|db|0", `_sc|db|2|d:1700000000|h:web-1|#env:prod,b,a|m:a|b\nc|c:ci-1`, "_sc|db|0|m:a|#b|e:c|card:d", "_sc|||m:", "_sc|a|3|m:||||", "_sc|a|1|m:m:|m:",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		original := bytes.Clone(line)
		p := Parser{ClientOrigin: true}
		c, err := p.ServiceCheck(line)
		var reason CheckError
		switch {
		case !bytes.Equal(original, line):
			t.Fatal("the line was modified")
		case err != nil && !errors.As(err, &reason):
			t.Fatalf("%q: error %v is no CheckError", line, err)
		case err != nil:
			return
		case c.Name == "" || strings.Contains(c.Name, "|") || c.Status > metric.CheckUnknown || c.Time < 0 || len(c.Message) > len(line) || c.Tags.Has(""):
			t.Fatalf("%q: accepted as %+v", line, c)
		}
		// What may follow a message is never the end of one.
		if i := strings.LastIndexByte(c.Message, '|'); i >= 0 && followsMessage([]byte(escaped(c.Message[i+1:]))) {
			t.Fatalf("%q: message %q", line, c.Message)
		}
	})
}
