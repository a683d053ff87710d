package query

import "testing"

func TestAutoInterval(t *testing.T) {
	f := func(length, want int64) {
		t.Helper()
		if got := autoInterval(length); got != want {
			t.Errorf("window of %d s: interval %d, want %d", length, got, want)
		}
	}
	// Recorded and documented (reference B3.4).
	f(200, 1)
	f(900, 5)
	f(1200, 5)
	f(3600, 20)
	f(4*3600, 60)
	f(86400, 300)
	f(2*86400, 600)
	f(7*86400, 3600)
	f(30*86400, 14400)
	// The edges
	f(0, 1)
	f(300, 1)
	f(301, 5)
	f(86400*300, 86400)
	f(86400*3000, 2*86400)
}

// Reference C.1: a day from a moment that no bucket begins at.
func TestGridOver(t *testing.T) {
	w := Window{From: 1641343852, To: 1641343852 + 86400}
	g := gridOver(w, autoInterval(w.To-w.From))
	if g.first != 1641344100 || g.interval != 300 || g.n != 288 {
		t.Errorf("got %+v", g)
	}
	if last := g.time(g.n - 1); last != 1641430200 {
		t.Errorf("last bucket at %d", last)
	}
	if g := gridOver(Window{From: -15, To: 15}, 10); g.first != -10 || g.n != 3 {
		t.Errorf("around the epoch: %+v", g)
	}
	if g := gridOver(Window{From: 1, To: 9}, 10); g.n != 0 {
		t.Errorf("no bucket begins here: %+v", g)
	}
}

func TestWiden(t *testing.T) {
	f := func(interval, length, want int64) {
		t.Helper()
		if got := widen(interval, length); got != want {
			t.Errorf("rollup of %d s over %d s: %d, want %d", interval, length, got, want)
		}
	}
	f(1, 1500, 1)
	f(1, 1501, 2)
	f(60, 90000, 60)
	f(60, 7*86400, 420)
	f(86400, 10, 86400)
}

func TestLCM(t *testing.T) {
	f := func(a, b, want int64) {
		t.Helper()
		if got := lcm(a, b); got != want {
			t.Errorf("%d, %d: got %d, want %d", a, b, got, want)
		}
	}
	f(10, 10, 10)
	f(20, 30, 60)
	f(1, 7, 7)
	f(31_622_399, 31_622_400, farthest)
	f(farthest, farthest, farthest)
}
