package cli

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/grpclog"
)

// grpcInterval is how often the library may complain. It does at every attempt to connect, of which the
// parts of the bridge that connect tell themselves.
const grpcInterval = 10 * time.Second

// logGRPC sends what gRPC logs to the log, for the whole process: its warnings and errors as warnings, the
// rest at debug. It is called once, before anything uses gRPC.
func logGRPC(log *slog.Logger) { grpclog.SetLoggerV2(&grpcLogger{log: log, now: time.Now}) }

// grpcLogger implements grpclog.LoggerV2.
type grpcLogger struct {
	log *slog.Logger
	now func() time.Time

	mu         sync.Mutex
	last       time.Time
	suppressed int
}

func (l *grpcLogger) warn(text string) {
	l.mu.Lock()
	if now := l.now(); now.Sub(l.last) < grpcInterval {
		l.suppressed++
		l.mu.Unlock()
		l.debug(text)
		return
	}
	l.last = l.now()
	suppressed := l.suppressed
	l.suppressed = 0
	l.mu.Unlock()
	l.log.Warn("gRPC complains", slog.String("text", strings.TrimSpace(text)), slog.Int("suppressed", suppressed))
}

func (l *grpcLogger) debug(text string) {
	l.log.Debug("gRPC", slog.String("text", strings.TrimSpace(text)))
}

func (l *grpcLogger) Info(args ...any)                    { l.debug(fmt.Sprint(args...)) }
func (l *grpcLogger) Infoln(args ...any)                  { l.debug(fmt.Sprintln(args...)) }
func (l *grpcLogger) Infof(format string, args ...any)    { l.debug(fmt.Sprintf(format, args...)) }
func (l *grpcLogger) Warning(args ...any)                 { l.warn(fmt.Sprint(args...)) }
func (l *grpcLogger) Warningln(args ...any)               { l.warn(fmt.Sprintln(args...)) }
func (l *grpcLogger) Warningf(format string, args ...any) { l.warn(fmt.Sprintf(format, args...)) }
func (l *grpcLogger) Error(args ...any)                   { l.warn(fmt.Sprint(args...)) }
func (l *grpcLogger) Errorln(args ...any)                 { l.warn(fmt.Sprintln(args...)) }
func (l *grpcLogger) Errorf(format string, args ...any)   { l.warn(fmt.Sprintf(format, args...)) }

// Fatal and its kin end the process, as gRPC expects.
func (l *grpcLogger) Fatal(args ...any) {
	l.log.Error("gRPC ends the process", slog.String("text", fmt.Sprint(args...)))
	os.Exit(exitError)
}

func (l *grpcLogger) Fatalln(args ...any)               { l.Fatal(fmt.Sprintln(args...)) }
func (l *grpcLogger) Fatalf(format string, args ...any) { l.Fatal(fmt.Sprintf(format, args...)) }

// V keeps the library from composing what nobody sees.
func (l *grpcLogger) V(level int) bool { return level <= 0 }
