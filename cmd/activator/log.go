package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger of a format and level, as the flags name them. It never makes who logs wait for the stream, and
// goes on where the stream's reader has gone. The function flush ends it: it waits a while for what has been logged to be written.
func newLogger(format, level string, to io.Writer) (logger *zap.Logger, flush func(), err error) {
	var at zapcore.Level
	if err := at.UnmarshalText([]byte(level)); err != nil || at > zapcore.ErrorLevel {
		return nil, nil, usage(fmt.Errorf("--log-level: %q is not debug, info, warn or error", level))
	}
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	config.EncodeDuration = zapcore.StringDurationEncoder
	config.TimeKey = "time"
	var encoder zapcore.Encoder
	switch {
	case format == "json", format == "auto" && !isTerminal(to):
		encoder = zapcore.NewJSONEncoder(config)
	case format == "console", format == "auto":
		config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		config.ConsoleSeparator = "  "
		encoder = zapcore.NewConsoleEncoder(config)
	default:
		return nil, nil, usage(fmt.Errorf("--log-format: %q is not json, console or auto", format))
	}
	w := newLogWriter(to)
	logger = zap.New(zapcore.NewCore(encoder, w, at))
	// Without anybody to notify, Go ends a process that writes to a stderr without reader. Ignoring the signal instead would
	// be inherited by the processes that are started.
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGPIPE)
	go w.run(func(lines int) { logger.Warn("log lines lost: nobody took them", zap.Int("lines", lines)) })
	return logger, func() { w.close(); signal.Stop(gone) }, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
