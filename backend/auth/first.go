package auth

import (
	"bytes"
	"errors"
	"os"
)

// First returns one key of s, for a program that speaks to its own server.
func (s Source) First() (string, error) {
	for _, key := range s.Keys {
		if key != "" {
			return key, nil
		}
	}
	paths, _, err := list(s.Files)
	if err != nil {
		return "", err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if keys := bytes.Fields(text); len(keys) > 0 {
			return string(keys[0]), nil
		}
	}
	return "", errors.New("no key is set")
}
