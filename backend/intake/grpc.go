package intake

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // what exporters compress with
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// otlpMethod is the path of the one method of OTLP's metrics service.
const (
	otlpService = "opentelemetry.proto.collector.metrics.v1.MetricsService"
	otlpMethod  = "/" + otlpService + "/Export"
)

// newGRPC returns the server of OTLP over gRPC. It is served as a handler of
// HTTP/2, so that the listener's limits and timeouts hold for it too.
func (in *Intake) newGRPC() *grpc.Server {
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawMessage{}), grpc.MaxRecvMsgSize(int(otlpLimits.wire)))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: otlpService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var body []byte
			err := read(&body)
			if err != nil {
				in.metrics.refused.WithLabelValues(reasonEncoding).Inc() // too big, or broken; gRPC tells its client
				return nil, err
			}
			resp, err := in.export(ctx, body)
			if err != nil {
				client := ""
				if p, ok := peer.FromContext(ctx); ok {
					client = p.Addr.String()
				}
				no := in.refused(otlpMethod, client, err)
				return nil, status.Error(no.grpcCode(), no.Error())
			}
			return &resp, nil
		}}},
	}, nil)
	return s
}

// export takes one message.
func (in *Intake) export(ctx context.Context, body []byte) ([]byte, error) {
	in.metrics.bytes.WithLabelValues("decoded").Add(float64(len(body)))
	b, err := in.foreign.OTLP(body, false, in.now())
	if err != nil {
		return nil, undecoded(err)
	}
	// A client that hangs up must not tear its batch.
	if err := in.storeForeign(context.WithoutCancel(ctx), b, dialectOTLP); err != nil {
		return nil, unstored(err)
	}
	return b.OTLPAnswer(false)
}

// otlpGRPC checks the key, and takes the memory that a message may need, before
// any of it is read.
func (in *Intake) otlpGRPC(w http.ResponseWriter, r *http.Request) {
	err := in.auth.Intake(r)
	if err != nil {
		err = &refusal{http.StatusForbidden, reasonForbidden, []string{err.Error()}}
	} else if err = acquire(r.Context(), in.bodies.Acquire, otlpLimits.wire); err == nil {
		defer in.bodies.Release(otlpLimits.wire)
		if err = acquire(r.Context(), in.decoding.Acquire, otlpLimits.wire); err == nil {
			defer in.decoding.Release(otlpLimits.wire)
		}
	}
	if err != nil {
		no := in.refused(r.Pattern, r.RemoteAddr, err)
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(int(no.grpcCode())))
		h.Set("Grpc-Message", url.PathEscape(no.Error()))
		w.WriteHeader(http.StatusOK)
		return
	}
	const frame = 5 // before the message
	r.Body = http.MaxBytesReader(w, r.Body, otlpLimits.wire+frame)
	in.grpc.ServeHTTP(w, r)
}

// grpcCode is the refusal in the words of gRPC. Clients try again after
// Unavailable only.
func (e *refusal) grpcCode() codes.Code {
	switch e.code {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType:
		return codes.InvalidArgument
	case http.StatusForbidden:
		return codes.Unauthenticated
	case http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	case http.StatusRequestTimeout:
		return codes.DeadlineExceeded
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// rawMessage is a codec that leaves messages as they are: they are looked over
// before they are decoded.
type rawMessage struct{}

// Name implements encoding.CodecV2.
func (rawMessage) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (rawMessage) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, errors.New("not a raw message")
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (rawMessage) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("not a raw message")
	}
	*b = data.Materialize()
	return nil
}
