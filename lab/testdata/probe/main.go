// Command probe is the application of the lab's own test: it answers, and it
// says what it sees of the cluster from inside a pod.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "uid" { // for kubectl exec
		fmt.Println(os.Getuid())
		return
	}
	go echo()
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Hello!\n") })
	http.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) { answer(w, fetch, r.FormValue("url")) })
	http.HandleFunc("GET /udp", func(w http.ResponseWriter, r *http.Request) { answer(w, datagram, r.FormValue("to")) })
	http.HandleFunc("GET /write", func(w http.ResponseWriter, r *http.Request) { answer(w, write, r.FormValue("file")) })
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func answer(w http.ResponseWriter, do func(string) (string, error), arg string) {
	text, err := do(arg)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = io.WriteString(w, text)
}

func fetch(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(body), err
}

// datagram sends one and returns what comes back.
func datagram(to string) (string, error) {
	conn, err := net.DialTimeout("udp", to, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("ping")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func write(file string) (string, error) {
	if err := os.WriteFile(file, []byte("kept\n"), 0o600); err != nil {
		return "", err
	}
	return fmt.Sprintf("uid %d wrote %s", os.Getuid(), file), nil
}

func echo() {
	conn, err := net.ListenPacket("udp", ":9125")
	if err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := conn.WriteTo(append([]byte("pong "), buf[:n]...), from); err != nil {
			log.Print(err)
		}
	}
}
