// SPDX-License-Identifier: BSL-1.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"
)

type options struct {
	scenario      string
	workers       int
	duration      time.Duration
	uncooperative bool
	gosched       bool
	hogMs         int
	rate          int
	tasks         int
}

// parseOptions reads the words after the program's name.
func parseOptions(words []string) (options, error) {
	scenario := ""
	if len(words) > 0 {
		scenario = words[0]
	}
	hogMs, mostHogMs := 50, 10_000
	switch scenario {
	case "starvation", "storm":
	case "latency":
		hogMs, mostHogMs = 20, 100
	default:
		return options{}, fmt.Errorf(
			"the scenario must be starvation, storm or latency, and not %q", scenario)
	}
	o := options{
		scenario: scenario, workers: 1, duration: time.Second, hogMs: hogMs, rate: 2000, tasks: 20_000,
	}
	var bad error // the flag package would wrap it in words of its own
	flags := flag.NewFlagSet("peer_go", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	whole := func(name string, least, most int, set func(int)) {
		flags.Func(name, "", func(text string) error {
			number, err := strconv.Atoi(text)
			if err != nil || number < least || number > most {
				bad = fmt.Errorf("--%s must be a whole number from %d to %d, and not %q", name, least, most, text)
				return bad
			}
			set(number)
			return nil
		})
	}
	whole("workers", 1, 2, func(n int) { o.workers = n })
	whole("duration-ms", 10, 600_000, func(n int) { o.duration = time.Duration(n) * time.Millisecond })
	whole("seconds", 1, 600, func(n int) { o.duration = time.Duration(n) * time.Second })
	whole("hog-ms", 0, mostHogMs, func(n int) { o.hogMs = n })
	whole("rate", 100, 20_000, func(n int) { o.rate = n })
	whole("tasks", 1000, 200_000, func(n int) { o.tasks = n })
	flags.BoolVar(&o.gosched, "gosched", false, "")
	flags.Func("hog", "", func(text string) error {
		if text != "cooperative" && text != "uncooperative" {
			bad = fmt.Errorf("--hog must be cooperative or uncooperative, and not %q", text)
			return bad
		}
		o.uncooperative = text == "uncooperative"
		return nil
	})
	if err := flags.Parse(words[1:]); err != nil {
		if bad == nil {
			bad = fmt.Errorf("bad arguments: %q", err)
		}
		return options{}, bad
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("there is no option %q", flags.Arg(0))
	}
	if o.gosched && o.uncooperative {
		return options{}, errors.New("--gosched needs a cooperative hog")
	}
	return o, nil
}

func (o options) variant() string {
	name := "cooperative"
	if o.scenario == "storm" {
		name = "tasks"
	} else if o.uncooperative {
		name = "uncooperative"
	} else if o.gosched {
		name = "gosched"
	}
	return fmt.Sprintf("%s/%d", name, o.workers)
}

// hogSteps is the number of steps of 10 us in a burst.
func (o options) hogSteps() int { return o.hogMs * 100 }

func (o options) arrivalPeriod() time.Duration { return time.Second / time.Duration(o.rate) }

func (o options) arrivals() int { return int(o.duration / o.arrivalPeriod()) }
