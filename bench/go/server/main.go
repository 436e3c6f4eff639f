// The services as users of Go would write them: a goroutine for each connection, and nothing but its standard library.
// ../../src/service.rs says what each of them is.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"runtime"
)

const (
	buffer      = 1 << 10
	largeBuffer = 16 << 10
	chunk       = 64 << 10
	backlog     = 16
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	service := flag.String("service", "echo", "echo, echo16k, sink, source, shared or proxy")
	to := flag.String("to", "", "where the proxy goes")
	workers := flag.Int("workers", 1, "threads that run goroutines at once")
	flag.Parse()
	runtime.GOMAXPROCS(*workers)

	serve, known := map[string]func(net.Conn) error{
		"echo":    func(conn net.Conn) error { return echo(conn, buffer) },
		"echo16k": func(conn net.Conn) error { return echo(conn, largeBuffer) },
		"sink":    sink,
		"source":  source,
		"shared":  shared,
		"proxy":   func(conn net.Conn) error { return proxy(conn, *to) },
	}[*service]
	if !known {
		log.Fatalf("no service %s", *service)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err)
			continue
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

func echo(conn net.Conn, size int) error {
	buf := make([]byte, size)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func sink(conn net.Conn) error {
	buf := make([]byte, chunk)
	length := make([]byte, 8)
	for {
		if _, err := io.ReadFull(conn, length); err != nil {
			return err
		}
		for left := binary.LittleEndian.Uint64(length); left > 0; {
			n, err := conn.Read(buf[:min(left, chunk)])
			if err != nil {
				return err
			}
			left -= uint64(n)
		}
		if _, err := conn.Write(length); err != nil {
			return err
		}
	}
}

func source(conn net.Conn) error {
	pattern := make([]byte, chunk)
	for i := range pattern {
		pattern[i] = byte(i % 251)
	}
	length := make([]byte, 8)
	for {
		if _, err := io.ReadFull(conn, length); err != nil {
			return err
		}
		for left := binary.LittleEndian.Uint64(length); left > 0; {
			count := min(left, chunk)
			if _, err := conn.Write(pattern[:count]); err != nil {
				return err
			}
			left -= count
		}
	}
}

func shared(conn net.Conn) error {
	pieces := make(chan []byte, backlog)
	written := make(chan error, 1)
	go func() {
		var failed error
		for piece := range pieces {
			if failed == nil {
				_, failed = conn.Write(piece)
			}
		}
		written <- failed
	}()
	buf := make([]byte, buffer)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			break
		}
		pieces <- append([]byte(nil), buf[:n]...)
	}
	close(pieces)
	return <-written
}

func proxy(client net.Conn, to string) error {
	server, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer server.Close()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(client, server)
		client.(*net.TCPConn).CloseWrite()
		back <- err
	}()
	if _, err := io.Copy(server, client); err != nil {
		return err
	}
	server.(*net.TCPConn).CloseWrite()
	return <-back
}
