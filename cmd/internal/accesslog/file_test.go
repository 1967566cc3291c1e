package accesslog

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	access "meshbridge/translate/accesslog"
)

// parse returns a log with a configuration.
func parse(t *testing.T, config proto.Message) *access.Log {
	t.Helper()
	packed, err := anypb.New(config)
	if err != nil {
		t.Fatal(err)
	}
	log, problems := access.Parse(&accesslogpb.AccessLog{ConfigType: &accesslogpb.AccessLog_TypedConfig{TypedConfig: packed}}, false)
	if log == nil || len(problems) > 0 {
		t.Fatalf("Parse: %v", problems)
	}
	return log
}

// toFile is a log with the names of routes, one a line.
func toFile(t *testing.T, path string) []*access.Log {
	t.Helper()
	return []*access.Log{parse(t, &filelogpb.FileAccessLog{Path: path, AccessLogFormat: &filelogpb.FileAccessLog_LogFormat{
		LogFormat: &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: "%ROUTE_NAME%\n"}},
		}},
	}})}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func TestEntriesAreAppendedToAFileInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte("from before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, logs := prepare(t, Config{}), toFile(t, path)
	var want strings.Builder
	want.WriteString("from before\n")
	for i := range 2000 {
		w.Write(logs, named(strconv.Itoa(i)))
		want.WriteString(strconv.Itoa(i) + "\n")
		if i == 1000 {
			w.run(t) // what came before has waited
		}
	}
	w.stop()
	if got := content(t, path); got != want.String() {
		t.Errorf("the file has %d bytes, want %d", len(got), want.Len())
	}
	if written := w.counted(t, "file", "written"); written != 2000 {
		t.Errorf("%d are counted as written, want 2000", written)
	}
	w.Write(logs, named("too late"))
	if lost := w.counted(t, "file", "lost"); lost != 1 {
		t.Errorf("%d are counted as lost, want the one that came after the end", lost)
	}
}

func TestAFileMayBeReadByOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	w := start(t, Config{})
	w.Write(toFile(t, path), named("a"))
	w.stop()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm() | 0o022; got != 0o666 { // whatever the umask
		t.Errorf("mode %o", info.Mode().Perm())
	}
}

func TestAFileThatIsRotatedAwayIsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	w, logs := start(t, Config{}), toFile(t, path)
	w.Write(logs, named("first"))
	eventually(t, "the first line", func() bool { return content(t, path) == "first\n" })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.Write(logs, named("second"))
	eventually(t, "the second line in a new file", func() bool { return content(t, path) == "second\n" })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.Write(logs, named("third"))
	eventually(t, "the third line in a new file", func() bool { return content(t, path) == "third\n" })
	if got := content(t, path+".1"); got != "first\n" {
		t.Errorf("the file that was rotated away has %q", got)
	}
}

func TestStdoutAndStderrAreTheProcesssOwn(t *testing.T) {
	stdout, stderr := &said{}, &said{}
	w := start(t, Config{Stdout: stdout, Stderr: stderr})
	w.Write(toFile(t, "/dev/stdout"), named("out"))
	w.Write(toFile(t, "/dev/stderr"), named("err"))
	w.stop()
	if stdout.String() != "out\n" || stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

func TestAFileThatCannotBeOpenedIsSaidOnceAndKeepsItsEntries(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "access.log")
	w, logs := start(t, Config{}), toFile(t, path)
	w.Write(logs, named("a"))
	eventually(t, "an error in the log", func() bool { return w.said.times("cannot be written") == 1 })
	w.Write(logs, named("b"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both lines", func() bool { return content(t, path) == "a\nb\n" })
	eventually(t, "that it works is in the log", func() bool { return w.said.times("written again") == 1 })
	if n := w.said.times("cannot be written"); n != 1 {
		t.Errorf("the error was said %d times", n)
	}
}

func TestANamedPipeWithoutReaderHoldsUpNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, Config{})
	w.Write(toFile(t, path), named("a"))
	eventually(t, "an error in the log", func() bool { return w.said.times("cannot be written") == 1 })
	w.stop()
	if lost := w.counted(t, "file", "lost"); lost != 1 {
		t.Errorf("%d are counted as lost, want 1", lost)
	}
}

// partial is a stream that takes some bytes at a time and then fails, as a disk that is full.
type partial struct {
	said
	room []int // for each write; what is beyond has room
}

func (p *partial) Write(b []byte) (int, error) {
	if len(p.room) == 0 {
		return p.said.Write(b)
	}
	n := min(p.room[0], len(b))
	p.room = p.room[1:]
	n, _ = p.said.Write(b[:n])
	return n, syscall.ENOSPC
}

func TestALineThatWasWrittenInPartIsGoneOnWith(t *testing.T) {
	stdout := &partial{room: []int{3, 4, 0}}
	w, logs := prepare(t, Config{Stdout: stdout}), toFile(t, "/dev/stdout")
	for _, name := range []string{"one", "two", "three"} {
		w.Write(logs, named(name))
	}
	w.run(t)
	eventually(t, "all lines", func() bool { return stdout.String() == "one\ntwo\nthree\n" })
	w.stop()
	if written, lost := w.counted(t, "file", "written"), w.counted(t, "file", "lost"); written != 3 || lost != 0 {
		t.Errorf("%d are counted as written and %d as lost, want 3 and 0", written, lost)
	}
}

func TestTheRestOfATornLineDoesNotBeginAnotherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	w := prepare(t, Config{})
	q := newQueue(destination{path: path}, w.metrics.of[access.KindFile])
	f := newFile(&w.config, path)
	f.lines, f.ends = []byte("torn\nwhole\n"), []int{5, 11}
	f.wrote(q, 2) // to a file that is rotated away then
	if err := f.write(q); err != nil {
		t.Fatal(err)
	}
	f.close()
	if got := content(t, path); got != "whole\n" {
		t.Errorf("the new file has %q", got)
	}
	if written, lost := w.counted(t, "file", "written"), w.counted(t, "file", "lost"); written != 1 || lost != 1 {
		t.Errorf("%d are counted as written and %d as lost, want 1 and 1", written, lost)
	}
}

// stuck is a stream that nobody reads until it is closed.
type stuck struct {
	*io.PipeWriter
	writing chan struct{} // closed when it is written to
	once    sync.Once
}

func (s *stuck) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.writing) })
	return s.PipeWriter.Write(b)
}

func TestWhatDoesNotFitIsLostAndNobodyWaits(t *testing.T) {
	reader, writer := io.Pipe()
	stdout := &stuck{PipeWriter: writer, writing: make(chan struct{})}
	w, logs := start(t, Config{Stdout: stdout}), toFile(t, "/dev/stdout")
	w.Write(logs, named("taken"))
	<-stdout.writing
	for range maxQueued + 5 {
		w.Write(logs, named("x"))
	}
	if lost := w.counted(t, "file", "lost"); lost != 5 {
		t.Errorf("%d are counted as lost, want 5", lost)
	}
	w.sayUnfit(t.Context())
	w.sayUnfit(t.Context())
	if n := w.said.times("entries=5"); n != 1 {
		t.Errorf("the loss was said %d times:\n%s", n, w.said)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	w.stop()
	if written := w.counted(t, "file", "written"); written != maxQueued+1 {
		t.Errorf("%d are counted as written, want %d", written, maxQueued+1)
	}
	_ = writer.Close()
}

func TestBytesThatWaitAreBounded(t *testing.T) {
	w := prepare(t, Config{})
	logs := toFile(t, "/dev/stdout")
	big := named(strings.Repeat("x", 1<<20))
	for range 40 {
		w.Write(logs, big)
	}
	if lost := w.counted(t, "file", "lost"); lost < 8 || lost > 10 {
		t.Errorf("%d of 40 entries of 1 MiB are lost with room for 32 MiB", lost)
	}
	w.run(t)
	w.stop()
}

func TestAQueueThatNobodyUsesIsForgotten(t *testing.T) {
	stdout := &said{}
	w, logs := start(t, Config{Stdout: stdout}), toFile(t, "/dev/stdout")
	w.Write(logs, named("a"))
	eventually(t, "the line", func() bool { return stdout.String() == "a\n" })
	w.forget(w.queues[destinationOf(logs[0])].used) // not older than the entry
	if len(w.queues) != 1 {
		t.Fatal("a queue that is used is forgotten")
	}
	w.forget(w.queues[destinationOf(logs[0])].used.Add(1))
	if len(w.queues) != 0 {
		t.Fatal("a queue that nobody uses stays")
	}
	w.Write(logs, named("b"))
	w.stop()
	if stdout.String() != "a\nb\n" {
		t.Errorf("stdout has %q", stdout)
	}
}

func TestEntriesFromManyAtOnceAreAllWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	w, logs := start(t, Config{}), toFile(t, path)
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 2000 {
				w.Write(logs, named("x"))
			}
		})
	}
	writers.Wait()
	w.stop()
	if got := strings.Count(content(t, path), "x\n"); got != 16000 {
		t.Errorf("%d lines of 16000", got)
	}
}
