package query

// MaxPoints is the most buckets one series of a result has. A narrower
// .rollup or Window.Interval is widened until the window fits.
const MaxPoints = 1500

// autoPoints is the most buckets that an interval chosen here leads to.
const autoPoints = 300

// ladder holds the intervals chosen from; the reference's recordings and
// documentation all follow from the smallest that gives at most autoPoints.
var ladder = [...]int64{1, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400}

// autoInterval is the bucket width for a window of the given length, in seconds.
func autoInterval(length int64) int64 {
	for _, i := range ladder {
		if length <= i*autoPoints {
			return i
		}
	}
	return widen(ladder[len(ladder)-1], length)
}

// widen returns the smallest multiple of interval that divides a window of the
// given length into at most MaxPoints buckets.
func widen(interval, length int64) int64 {
	buckets := ceilDiv(length, interval)
	return interval * max(1, ceilDiv(buckets, MaxPoints))
}

// A grid is n buckets aligned to the epoch.
type grid struct {
	first    int64 // start of the first bucket
	interval int64
	n        int
}

// gridOver returns the buckets of a window: those that begin in it. A bucket
// begun before the window is left out; the last may reach beyond its end.
func gridOver(w Window, interval int64) grid {
	first := ceilDiv(w.From, interval) * interval
	last := floorDiv(w.To, interval) * interval
	if last < first {
		return grid{first: first, interval: interval}
	}
	return grid{first: first, interval: interval, n: int((last-first)/interval) + 1}
}

// before returns g with n more buckets in front.
func (g grid) before(n int) grid {
	return grid{first: g.first - int64(n)*g.interval, interval: g.interval, n: g.n + n}
}

func (g grid) time(i int) int64 { return g.first + int64(i)*g.interval }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func ceilDiv(a, b int64) int64 { return -floorDiv(-a, b) }

// lcm is the least common multiple of two positive numbers, at most farthest.
func lcm(a, b int64) int64 {
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	if a /= x; a > farthest/b {
		return farthest
	}
	return a * b
}
