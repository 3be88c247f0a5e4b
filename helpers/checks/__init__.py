"""The checks of the exercises, a module per lesson, and the quizzes."""
