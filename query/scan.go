package query

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of the language, so that hostile text costs little.
const (
	MaxLength   = 16 << 10 // bytes in one text
	MaxDepth    = 64       // nested parentheses, calls, signs and NOTs
	MaxOperands = 256      // queries and numbers in one text
)

// scanner reads tokens at a position. What a token is depends on the place in
// the grammar (a "-" is part of a tag but an operator outside of braces), so the
// parser asks for the token it wants instead of being handed the next one.
type scanner struct {
	src string
	pos int
}

func (s *scanner) errorAt(offset int, kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Query: s.src, Offset: offset, Message: fmt.Sprintf(format, args...)}
}

// expected reports that what stands at the position is not what was wanted.
func (s *scanner) expected(what string) error {
	s.space()
	return s.errorAt(s.pos, Syntax, "expected %s", what)
}

func (s *scanner) space() {
	for s.pos < len(s.src) && strings.IndexByte(" \t\r\n", s.src[s.pos]) >= 0 {
		s.pos++
	}
}

// peek returns the next byte that is not space, or 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.src) {
		return 0
	}
	return s.src[s.pos]
}

// accept consumes c if it comes next.
func (s *scanner) accept(c byte) bool {
	if s.peek() != c || s.pos == len(s.src) {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) expect(c byte) error {
	if !s.accept(c) {
		return s.expected(strconv.Quote(string(c)))
	}
	return nil
}

// name consumes an identifier: a letter, then letters, digits, '_' and '.'. It
// returns "" when none comes next.
func (s *scanner) name() string {
	s.space()
	start := s.pos
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (s.pos == start || !isDigit(c) && c != '_' && c != '.') {
			break
		}
		s.pos++
	}
	return s.src[start:s.pos]
}

// number consumes an unsigned decimal number. ok is false when none comes next.
func (s *scanner) number() (v float64, ok bool, err error) {
	s.space()
	start := s.pos
	digits := s.digits()
	if s.pos < len(s.src) && s.src[s.pos] == '.' {
		s.pos++
		digits += s.digits()
	}
	if digits == 0 {
		s.pos = start
		return 0, false, nil
	}
	if mantissa := s.pos; mantissa < len(s.src) && s.src[mantissa]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.src) && (s.src[s.pos] == '+' || s.src[s.pos] == '-') {
			s.pos++
		}
		if s.digits() == 0 {
			s.pos = mantissa
		}
	}
	v, err = strconv.ParseFloat(s.src[start:s.pos], 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, false, s.errorAt(start, Syntax, "number %s is out of range", s.src[start:s.pos])
	}
	return v, true, nil
}

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.src) && isDigit(s.src[s.pos]) {
		s.pos++
	}
	return s.pos - start
}

// quoted consumes a string in single or double quotes; there are no escapes.
func (s *scanner) quoted() (string, error) {
	start := s.pos
	end := strings.IndexByte(s.src[start+1:], s.src[start])
	if end < 0 {
		return "", s.errorAt(start, Syntax, "string is not closed")
	}
	s.pos = start + end + 2
	return s.src[start+1 : start+1+end], nil
}

// tagText consumes a run of the characters that a tag, a key or a value may be
// written with in a scope, lower-cased. It returns "" when none comes next.
func (s *scanner) tagText() (string, error) {
	s.space()
	start := s.pos
	for s.pos < len(s.src) {
		r, size := utf8.DecodeRuneInString(s.src[s.pos:])
		if r == utf8.RuneError && size == 1 {
			return "", s.errorAt(s.pos, Syntax, "text is not valid UTF-8")
		}
		if r <= ' ' || r == 0x7f || strings.ContainsRune("{}(),!\"'", r) {
			break
		}
		s.pos += size
	}
	return strings.ToLower(s.src[start:s.pos]), nil
}

// keyword consumes word, in upper or lower case, if it comes next and ends there.
func (s *scanner) keyword(word string) bool {
	s.space()
	end := s.pos + len(word)
	if end > len(s.src) {
		return false
	}
	if got := s.src[s.pos:end]; got != word && got != strings.ToLower(word) {
		return false
	}
	if end < len(s.src) && strings.IndexByte(" \t\r\n(){},!", s.src[end]) < 0 {
		return false
	}
	s.pos = end
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
