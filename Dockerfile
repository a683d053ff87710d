# syntax=docker/dockerfile:1
# The same image as image/kelpie.yaml, for those who have Docker:
#   docker build --build-arg VERSION=0.1.0 --tag kelpie.dev/kelpie:0.1.0 .
FROM golang:1.26 AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/cache \
    CGO_ENABLED=0 GOCACHE=/cache go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/usr/bin/ \
      ./cmd/kelpie-agent ./cmd/kelpie-backend ./cmd/kelpie-cluster-agent ./cmd/kelpie
RUN ln -s kelpie-agent /out/usr/bin/agent \
 && ln -s kelpie-cluster-agent /out/usr/bin/datadog-cluster-agent \
 && install -d -o 65532 -g 65532 /state/lib/kelpie

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/ /
COPY --from=build --chown=65532:65532 /state/lib/kelpie /var/lib/kelpie
USER 65532:65532
ENTRYPOINT ["/usr/bin/kelpie"]
