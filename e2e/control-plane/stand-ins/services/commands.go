package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// properties are those that show knows, in its order.
var properties = []string{
	"Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result", "MainPID", "ActiveEnterTimestampMonotonic",
}

// command is a command line of systemctl, understood.
type command struct {
	verb  string
	units []string
	// asked are the properties to show; none: all.
	asked []string
	// isValue leaves their names out.
	isValue bool
	isQuiet bool
}

func read(arguments []string) (command, error) {
	var said command
	for at := 0; at < len(arguments); at++ {
		word := arguments[at]
		option, value, hasValue := strings.Cut(word, "=")
		switch {
		case option == "--property" || option == "-p":
			if !hasValue {
				at++
				if at == len(arguments) {
					return said, fmt.Errorf("%s needs a value", option)
				}
				value = arguments[at]
			}
			said.asked = append(said.asked, strings.Split(value, ",")...)
		case word == "--value":
			said.isValue = true
		case word == "--quiet" || word == "-q":
			said.isQuiet = true
		case word == "--no-pager" || word == "--no-ask-password" || word == "--full" || word == "-l":
		case strings.HasPrefix(word, "-"):
			return said, fmt.Errorf("unrecognized option '%s'", word)
		case said.verb == "":
			said.verb = word
		default:
			said.units = append(said.units, word)
		}
	}
	return said, nil
}

// do carries a command line out.
func (m *manager) do(arguments []string) answer {
	said, err := read(arguments)
	if err != nil {
		return answer{Errors: err.Error() + "\n", Status: 1}
	}
	switch said.verb {
	case "daemon-reload":
		return answer{}
	case "show":
		return answer{Output: m.show(said)}
	case "is-active":
		return m.isActive(said)
	case "start", "stop", "restart", "reset-failed":
	default:
		return answer{Errors: fmt.Sprintf("Unknown command verb '%s'.\n", said.verb), Status: 1}
	}
	for _, name := range said.units {
		one := m.find(name)
		if one == nil {
			return answer{Errors: fmt.Sprintf("Unit %s not found.\n", withEnding(name)), Status: 5}
		}
		if err := m.change(said.verb, one); err != nil {
			return answer{Errors: fmt.Sprintf("Job for %s failed: %v\n", withEnding(name), err), Status: 1}
		}
	}
	return answer{}
}

func withEnding(name string) string {
	if strings.HasSuffix(name, ".service") {
		return name
	}
	return name + ".service"
}

func (m *manager) show(said command) string {
	m.lock.Lock()
	defer m.lock.Unlock()
	asked := said.asked
	if len(asked) == 0 {
		asked = properties
	}
	var blocks []string
	for _, name := range said.units {
		values := values(name, m.find(name))
		var block strings.Builder
		for _, property := range properties {
			if !slices.Contains(asked, property) {
				continue
			}
			if !said.isValue {
				block.WriteString(property + "=")
			}
			block.WriteString(values[property] + "\n")
		}
		blocks = append(blocks, block.String())
	}
	return strings.Join(blocks, "\n")
}

func values(name string, one *unit) map[string]string {
	if one == nil {
		return map[string]string{
			"Id": withEnding(name), "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead",
			"NRestarts": "0", "Result": "success", "MainPID": "0", "ActiveEnterTimestampMonotonic": "0",
		}
	}
	return map[string]string{
		"Id": withEnding(name), "LoadState": "loaded", "ActiveState": one.state, "SubState": one.substate,
		"UnitFileState": "enabled", "NRestarts": fmt.Sprint(one.restarts), "Result": one.result,
		"MainPID": fmt.Sprint(one.process), "ActiveEnterTimestampMonotonic": fmt.Sprint(one.since),
	}
}

func (m *manager) isActive(said command) answer {
	m.lock.Lock()
	defer m.lock.Unlock()
	told := answer{Status: 3}
	for _, name := range said.units {
		state := values(name, m.find(name))["ActiveState"]
		if state == "active" {
			told.Status = 0
		}
		if !said.isQuiet {
			told.Output += state + "\n"
		}
	}
	return told
}

func (m *manager) change(verb string, one *unit) error {
	if verb == "stop" || verb == "restart" {
		m.stop(one)
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	switch verb {
	case "start", "restart":
		if one.state == "active" {
			return nil
		}
		one.restarts = 0
		return one.start()
	case "reset-failed":
		one.restarts, one.result = 0, "success"
		if one.state == "failed" {
			one.state, one.substate = "inactive", "dead"
		}
	}
	return nil
}

// stop asks it to end, kills it when it does not, and waits for the end.
func (m *manager) stop(one *unit) {
	m.lock.Lock()
	one.wanted = false
	process := one.process
	if process == 0 {
		// One that waits to be started anew is not.
		one.state, one.substate = "inactive", "dead"
		m.lock.Unlock()
		return
	}
	one.state, one.substate = "deactivating", "stop-sigterm"
	m.signal(one, process, syscall.SIGTERM)
	m.lock.Unlock()
	for begun := time.Now(); ; time.Sleep(lookEvery) {
		m.lock.Lock()
		hasEnded := one.process != process
		if !hasEnded && time.Since(begun) > stopLimit {
			m.signal(one, process, syscall.SIGKILL)
		}
		m.lock.Unlock()
		if hasEnded {
			return
		}
	}
}

// signal hits the process that was meant: nobody else takes it up, so its number is its own until that has happened.
func (m *manager) signal(one *unit, process int, signal syscall.Signal) {
	if one.process == process {
		_ = syscall.Kill(process, signal)
	}
}
