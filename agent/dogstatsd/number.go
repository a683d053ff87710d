package dogstatsd

import (
	"math"
	"strconv"
)

// parseFloat reads a number; short decimals, which nearly all are, without
// strconv.
func parseFloat(b []byte) (float64, bool) {
	if v, ok := parseDecimal(b); ok {
		return v, true
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil && math.IsInf(v, 0) {
		return v, true // out of range: a number, but not a finite one
	}
	return v, err == nil
}

var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseDecimal reads [+-]digits[.digits] of at most 15 digits. Mantissa and
// power of ten are then exact, so that their quotient is rounded once, as
// strconv would round it.
func parseDecimal(b []byte) (float64, bool) {
	i, negative := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		i++
	}
	if len(b)-i > 16 {
		return 0, false
	}
	mantissa, digits, fraction, point := uint64(0), 0, 0, false
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c >= '0' && c <= '9':
			mantissa = mantissa*10 + uint64(c-'0')
			digits++
			if point {
				fraction++
			}
		case c == '.' && !point:
			point = true
		default:
			return 0, false
		}
	}
	if digits == 0 || digits > 15 {
		return 0, false
	}
	v := float64(mantissa)
	if fraction > 0 {
		v /= powersOfTen[fraction]
	}
	if negative {
		v = -v
	}
	return v, true
}
