// Package valuestream is the wire between a Kelpie backend and a Kelpie cluster
// agent on which values are pushed: its messages, and Connect's client and
// handler of its one call.
//
// It owns the contract, valuestream.proto, of which the rest is generated (make
// generate). It does not know how values come about or what they are for.
package valuestream
