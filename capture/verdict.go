package capture

// verdict is what the first bytes of a connection tell about one question.
type verdict int

const (
	undecided verdict = iota // more bytes are needed
	no
	yes
)
