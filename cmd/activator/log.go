package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger of a format and level, as the flags name them.
func newLogger(format, level string, to io.Writer) (*zap.Logger, error) {
	var at zapcore.Level
	if err := at.UnmarshalText([]byte(level)); err != nil || at > zapcore.ErrorLevel {
		return nil, usage(fmt.Errorf("--log-level: %q is not debug, info, warn or error", level))
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
		return nil, usage(fmt.Errorf("--log-format: %q is not json, console or auto", format))
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(to)), at)), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
