package dialect

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds how deep messages lie in each other. OTLP's go ten deep, and
// lists in attributes go on from there.
const maxDepth = 32

// unmarshal decodes a protobuf body, once it is known not to have too much in it.
func unmarshal(body []byte, into proto.Message) error {
	left := maxMessages
	if err := scan(into.ProtoReflect().Descriptor(), body, &left, 0); err != nil {
		return err
	}
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, into)
}

// scan counts the messages in body, which is a message of kind md.
func scan(md protoreflect.MessageDescriptor, body []byte, left *int, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("messages lie more than %d deep in each other", maxDepth)
	}
	fields := md.Fields()
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return protowire.ParseError(n)
		}
		body = body[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
				return protowire.ParseError(n)
			}
			body = body[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(body)
		if n < 0 {
			return protowire.ParseError(n)
		}
		body = body[n:]
		fd := fields.ByNumber(num)
		if fd == nil || fd.Message() == nil {
			continue
		}
		if *left--; *left < 0 {
			return ErrTooMuch
		}
		if err := scan(fd.Message(), v, left, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// unmarshalJSON is unmarshal of a body in protobuf's JSON form.
func unmarshalJSON(body []byte, into proto.Message) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return errors.New("empty body")
	}
	if bytes.Count(body, []byte("{")) > maxMessages {
		return ErrTooMuch
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 2 * maxDepth}.Unmarshal(body, into)
}
