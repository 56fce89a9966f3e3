// Command services is the first process of a node that is a whole machine to its programs, and the systemctl of that node: it
// starts and ends services, starts them anew when they end by themselves, counts that, and tells it as systemd does. There is no
// systemd where these nodes run, and everything that a node's services do is real all the same.
//
// Called as systemctl it asks the first process over a socket. What is not understood fails: nothing is done by halves.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
)

// socket is where the first process answers systemctl.
const socket = "/run/services.sock"

// answer is what systemctl prints, and with which status it ends.
type answer struct {
	Output string
	Errors string
	Status int
}

func main() {
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "systemctl":
		err = ask(os.Args[1:])
	case len(os.Args) == 2:
		err = manage(os.Args[1])
	default:
		err = fmt.Errorf("usage: services FILE-OF-UNITS")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// ask passes a command line on, and prints and ends as it is told.
func ask(arguments []string) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := json.NewEncoder(connection).Encode(arguments); err != nil {
		return err
	}
	var told answer
	if err := json.NewDecoder(connection).Decode(&told); err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, told.Output); err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, told.Errors)
	os.Exit(told.Status)
	return nil
}

// manage is the first process: it never ends by itself.
func manage(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var described []description
	if err := json.Unmarshal(text, &described); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	manager := newManager(described)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go manager.reap()
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			var arguments []string
			if json.NewDecoder(connection).Decode(&arguments) != nil {
				return
			}
			told := manager.do(arguments)
			// Who has gone away needs no answer.
			_ = json.NewEncoder(connection).Encode(told)
		}()
	}
}
