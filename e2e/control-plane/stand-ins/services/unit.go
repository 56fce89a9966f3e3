package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// journal is where journald takes what a service prints.
	journal = "/run/systemd/journal/stdout"
	// stopLimit is systemd's: who has not ended by then is killed.
	stopLimit = 90 * time.Second
	// lookEvery is how often a command looks whether a service has come to where it should.
	lookEvery = 20 * time.Millisecond
)

// description is what the file of units says of one.
type description struct {
	Name    string
	Command []string
	// RestartSeconds is how long after an end of its own it is started anew; nothing: never.
	RestartSeconds *float64
}

// unit is a service. Its fields change under the manager's lock.
type unit struct {
	description
	process  int
	state    string
	substate string
	result   string
	restarts int
	// since is when it became active, in microseconds of the monotonic clock; 0: never.
	since int64
	// wanted is whether it is started anew when it ends.
	wanted bool
	// started counts starts: a timer of an earlier one does nothing.
	started int
}

type manager struct {
	lock  sync.Mutex
	units []*unit
}

func newManager(described []description) *manager {
	manager := &manager{}
	for _, one := range described {
		manager.units = append(manager.units, &unit{
			description: one, state: "inactive", substate: "dead", result: "success",
		})
	}
	return manager
}

func (m *manager) find(name string) *unit {
	if filepath.Ext(name) == ".service" {
		name = name[:len(name)-len(".service")]
	}
	for _, one := range m.units {
		if one.Name == name {
			return one
		}
	}
	return nil
}

// start starts it; the lock is held, so that its end is not seen before its number is.
func (u *unit) start() error {
	output, err := u.output()
	if err != nil {
		return err
	}
	defer output.Close()
	program, err := lookPath(u.Command[0])
	if err != nil {
		return err
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer nothing.Close()
	process, err := syscall.ForkExec(program, u.Command, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{nothing.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	u.process, u.since, u.wanted = process, now.Nano()/1000, true
	u.state, u.substate, u.result = "active", "running", "success"
	u.started++
	return nil
}

// output is the journal once it is there, with the words in front that systemd says: who prints, and of which unit it is.
func (u *unit) output() (*os.File, error) {
	connection, err := net.Dial("unix", journal)
	if err != nil {
		// Journald itself, and what comes before it, print where this process does.
		copied, err := syscall.Dup(int(os.Stdout.Fd()))
		return os.NewFile(uintptr(copied), "stdout"), err
	}
	defer connection.Close()
	head := fmt.Sprintf("%s\n%s.service\n30\n1\n0\n0\n0\n", filepath.Base(u.Command[0]), u.Name)
	if _, err := connection.Write([]byte(head)); err != nil {
		return nil, err
	}
	return connection.(*net.UnixConn).File()
}

func lookPath(program string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, directory := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(directory, program)
		if found, err := os.Stat(path); err == nil && found.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not there", program)
}

// reap takes up every process that ends: services, and those whose parent has ended.
func (m *manager) reap() {
	for {
		var status syscall.WaitStatus
		// Held only where something has ended: otherwise nothing could be started.
		m.lock.Lock()
		process, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == nil && process > 0 {
			m.ended(process, status)
			m.lock.Unlock()
			continue
		}
		m.lock.Unlock()
		time.Sleep(lookEvery)
	}
}

func (m *manager) ended(process int, status syscall.WaitStatus) {
	for _, one := range m.units {
		if one.process != process {
			continue
		}
		one.process = 0
		if one.wanted || status.Signal() == syscall.SIGKILL {
			one.result = result(status)
		}
		if one.wanted && one.RestartSeconds != nil {
			one.state, one.substate = "activating", "auto-restart"
			m.startLater(one)
			return
		}
		one.state, one.substate = "inactive", "dead"
		if one.result != "success" {
			one.state, one.substate = "failed", "failed"
		}
		return
	}
}

// startLater starts a service anew unless a person was faster.
func (m *manager) startLater(one *unit) {
	started := one.started
	time.AfterFunc(time.Duration(*one.RestartSeconds*float64(time.Second)), func() {
		m.lock.Lock()
		defer m.lock.Unlock()
		if one.started != started || one.substate != "auto-restart" {
			return
		}
		one.restarts++
		if one.start() != nil {
			one.started++
			one.result = "resources"
			m.startLater(one)
		}
	})
}

func result(status syscall.WaitStatus) string {
	switch {
	case status.CoreDump():
		return "core-dump"
	case status.Signaled():
		return "signal"
	case status.ExitStatus() != 0:
		return "exit-code"
	default:
		return "success"
	}
}
