// Command web is a small program for pods of tests: it serves its pod's name over HTTP and says since when, and with -get it is a
// client inside the cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sinceHeader tells when the port was opened, in nanoseconds of the monotonic clock that all processes of the machine share.
const sinceHeader = "Listening-Since-Nanoseconds"

func main() {
	listen := flag.String("listen", ":8080", "where to serve")
	get := flag.String("get", "", "ask for this URL, print the answer and end")
	limit := flag.Duration("limit", 5*time.Second, "how long -get may take")
	flag.Parse()
	if *get != "" {
		if err := fetch(*get, *limit); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &since); err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: answer(strconv.FormatInt(since.Nano(), 10))}
	go func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(limited); err != nil {
			log.Printf("Not every connection ended in time: %v", err)
		}
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func answer(since string) http.HandlerFunc {
	return func(writer http.ResponseWriter, _ *http.Request) {
		name, err := os.Hostname()
		if err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		writer.Header().Set(sinceHeader, since)
		fmt.Fprintln(writer, name)
	}
}

func fetch(url string, limit time.Duration) error {
	client := &http.Client{Timeout: limit}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
