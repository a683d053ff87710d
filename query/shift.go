package query

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	hour  = 3600
	day   = 24 * hour
	week  = 7 * day
	month = 28 * day // so that weekdays stay

	// A calendar's shift is at most so far from what its days come to: a zone
	// may skip a day.
	calendarSlack = day
)

// shiftFunctions read their argument at an earlier time, and show it now.
func shiftFunctions() map[string]function {
	by := func(seconds int64) function {
		return function{
			counts: true, unit: true, shifts: true,
			over: moved(func(*Call) (shift, error) { return func(t int64) int64 { return t - seconds }, nil }),
			back: func(*Call, int64) int64 { return seconds },
		}
	}
	return map[string]function{
		"hour_before":  by(hour),
		"day_before":   by(day),
		"week_before":  by(week),
		"month_before": by(month),
		"timeshift": {
			params: []param{whole(-maxRollup, 0, " of seconds")}, counts: true, unit: true, shifts: true,
			over: moved(func(c *Call) (shift, error) {
				seconds := int64(c.number(0))
				return func(t int64) int64 { return t + seconds }, nil
			}),
			back: func(c *Call, _ int64) int64 { return -int64(c.number(0)) },
		},
		"calendar_shift": {
			params: []param{aCalendarShift, aZone}, counts: true, unit: true, shifts: true,
			over: moved(calendarShift),
			back: func(c *Call, _ int64) int64 {
				months, days, _ := calendarParts(c.word(0, ""))
				return int64(31*months+days)*day + calendarSlack
			},
		},
	}
}

// moved evaluates a call's argument where the call's shift says. The newest
// point that contributed counts as moved, too: it is as old as it was then.
func moved(shiftOf func(*Call) (shift, error)) func(context.Context, *evaluator, input) (term, error) {
	return func(ctx context.Context, ev *evaluator, in input) (term, error) {
		move, err := shiftOf(in.Call)
		if err != nil {
			return term{}, err
		}
		if in.at.instants == nil {
			t, err := ev.term(ctx, in.X, in.at.shifted(move))
			if err != nil {
				return term{}, err
			}
			return t.each(in.label), nil
		}
		newest := ev.newest
		ev.newest = nothingYet
		t, err := ev.term(ctx, in.X, in.at.shifted(move))
		if err != nil {
			return term{}, err
		}
		if last := in.at.instants[len(in.at.instants)-1]; ev.newest != nothingYet {
			ev.newest += last - move(last)
		}
		ev.newest = max(ev.newest, newest)
		return t.each(func(s *series) {
			then := s.points
			s.points = make([]Point, 0, len(then))
			for _, now := range in.at.instants {
				i, found := slices.BinarySearchFunc(then, move(now), func(p Point, t int64) int { return int(p.Time - t) })
				if found {
					s.points = append(s.points, Point{Time: now, Value: then[i].Value})
				}
			}
			in.label(s)
		}).withPoints(), nil
	}
}

func aCalendarShift(a Arg) string {
	if _, _, ok := calendarParts(a.Text); a.Kind != StringArg || !ok {
		return "expected a shift such as '-1d', '-7d' or '-1mo', of at most a year"
	}
	return ""
}

// calendarParts reads "-7d", "-1w" or "-1mo".
func calendarParts(text string) (months, days int, ok bool) {
	rest, ok := strings.CutPrefix(text, "-")
	digits := strings.TrimRight(rest, "dwmo")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || n == 0 {
		return 0, 0, false
	}
	switch unit := rest[len(digits):]; {
	case unit == "d" && n <= 366:
		return 0, int(n), true
	case unit == "w" && n <= 52:
		return 0, int(7 * n), true
	case unit == "mo" && n <= 12:
		return int(n), 0, true
	}
	return 0, 0, false
}

func aZone(a Arg) string {
	if a.Kind != StringArg || a.Text == "" || a.Text == "Local" {
		return "expected the name of a time zone, such as 'UTC' or 'Europe/Berlin'"
	}
	if _, err := time.LoadLocation(a.Text); err != nil {
		return fmt.Sprintf("time zone %q is not known", a.Text)
	}
	return ""
}

// calendarShift is the same time of day so many days or months earlier, by the
// clocks of a zone. A month that is too short gives its last day.
func calendarShift(c *Call) (shift, error) {
	months, days, _ := calendarParts(c.word(0, ""))
	zone, err := time.LoadLocation(c.word(1, ""))
	if err != nil {
		return nil, refuse(c, c.Args[1].Pos, "time zone %q is not known", c.word(1, ""))
	}
	return func(t int64) int64 {
		at := time.Unix(t, 0).In(zone)
		y, m, d := at.Date()
		m -= time.Month(months)
		if last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day(); months > 0 {
			d = min(d, last)
		}
		return time.Date(y, m, d-days, at.Hour(), at.Minute(), at.Second(), 0, zone).Unix()
	}, nil
}
