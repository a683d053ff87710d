package record

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kelpie.dev/kelpie/metric"
)

const childEnv = "KELPIE_RECORD_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		runChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// runChild keeps records until it is killed, and prints a number once all that
// goes with it is acknowledged.
func runChild(dir string) {
	b, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for i := range 1_000_000 {
		name := fmt.Sprint("n", i)
		_, _, err1 := b.AddEvents(ctx, []metric.Event{{Title: name}})
		_, err2 := b.AddChecks(ctx, []metric.ServiceCheck{{Name: name}})
		err3 := b.SetHost(ctx, Host{Name: name, Tags: metric.NewTags("i:" + name)})
		if err1 != nil || err2 != nil || err3 != nil {
			fmt.Println(err1, err2, err3)
			return
		}
		fmt.Println("ack", i)
	}
}

// TestKillNineLosesNothingAcknowledged kills a writing process and looks for
// every record that it had acknowledged.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acks := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "ack %d", &acks); err != nil {
			t.Fatalf("the child says %s", lines.Text())
		}
		if acks == 40 {
			_ = child.Process.Kill() // what it printed until it died is read too
		}
	}
	if err := child.Wait(); err == nil || acks < 40 {
		t.Fatalf("the child ended after %d: %v", acks, err)
	}
	b := open(t, Options{Dir: dir})
	events, err := b.Events(t.Context(), Filter{To: time.Now().Unix() + 60})
	if err != nil || len(events) < acks+1 {
		t.Errorf("%d events of %d, %v", len(events), acks+1, err)
	}
	for i := range acks + 1 {
		name := fmt.Sprint("n", i)
		if checks, err := b.Checks(t.Context(), name); err != nil || len(checks) != 1 {
			t.Errorf("check %s: %v %v", name, checks, err)
		}
		if tags := b.HostTags(name); tags.String() != "i:"+name {
			t.Errorf("host %s has tags %v", name, tags)
		}
	}
}
